#!/usr/bin/env bash
# Builds .venv with everything that `make demo` and `make test` need. Called by make; safe to call
# again, by two makes at once, and after an interruption: a .venv that was not finished, or that no
# longer fits the requirements, is built anew (downloads are kept in uv's cache).
# `scripts/setup.sh bench` adds what benchmarks/ measures against.
#
# Variables: PYTHON=/path/to/python   alone, instead of the first of python3.11, 3.12, 3.13, python3
#            CODEPMP_ACCELERATOR=cpu  or gpu, instead of looking for an NVIDIA GPU
#            CODEPMP_EXTRAS=demo,s3   instead of demo,dev: what is installed beside the engines
#            CODEPMP_ENVIRONMENTS=DIR folder that machines share: what one has built is unpacked by
#                                     others with the same path, interpreter and accelerator
# Package sources configured for pip (pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, ...) are used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv STAMP=.venv/.complete LOG=.venv/setup.log
readonly NEEDED_GB_CPU=6 NEEDED_GB_GPU=16
readonly TORCH_VERSION=2.13.0
readonly EXTRAS="${CODEPMP_EXTRAS-demo,dev}"
# The CPU build of torch is on no registry, only on PyTorch's own index.
readonly TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

fail() {
    echo "setup: $*" >&2
    exit 1
}

# Prints what the environment must have been made from; it is up to date when the stamp says the same.
wanted_stamp() {
    "$1" - "$2" "$EXTRAS" <<'PYTHON'
import hashlib, json, os, pathlib, sys, tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text(encoding="utf-8"))
parts = [json.dumps([project["build-system"], project["project"]], sort_keys=True)]
for name in ("constraints.txt", "overrides.txt", "overrides-cpu.txt", "scripts/setup.sh"):
    parts.append(pathlib.Path(name).read_text(encoding="utf-8"))
# Scripts in a venv hold its path, so one that was moved does not work.
parts += [os.getcwd(), *sys.argv[1:], str(sys.version_info[:2])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON
}

find_accelerator() {
    if [[ -n ${CODEPMP_ACCELERATOR:-} ]]; then
        [[ $CODEPMP_ACCELERATOR == cpu || $CODEPMP_ACCELERATOR == gpu ]] ||
            fail "CODEPMP_ACCELERATOR=$CODEPMP_ACCELERATOR is neither cpu nor gpu."
        echo "$CODEPMP_ACCELERATOR"
    elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
        echo gpu
    else
        echo cpu
    fi
}

find_python() {
    local candidate tried="" candidates=(python3.11 python3.12 python3.13 python3)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON") # that one or none
    for candidate in "${candidates[@]}"; do
        # Started, not only looked up: version managers leave launchers of versions that are absent.
        # With .venv activated the name means its own interpreter, which is about to be removed, so
        # what counts is the interpreter that an environment was made from.
        "$candidate" -c 'import sys
if not (3, 11) <= sys.version_info < (3, 14): sys.exit(1)
print(sys.argv[1] if sys.prefix == sys.base_prefix else sys._base_executable)' \
            "$candidate" 2>/dev/null && return
        tried+="${tried:+, }$candidate$("$candidate" -c \
            'import platform; print(" is", platform.python_version())' 2>/dev/null || echo " is absent")"
    done
    fail "Python 3.11, 3.12 or 3.13 is needed ($tried). Install one, or name it with PYTHON=/path/to/python."
}

# Free space in GB where folder $1 is or would be made.
free_gb() {
    local folder=$1
    while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
    df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1024 / 1024) }'
}

check_space() {
    local folder have
    for folder in . "${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}}"; do
        have=$(free_gb "$folder")
        ((have >= $1)) || fail "$1 GB of free disk space are needed at $folder, there are $have."
    done
}

# Exports pip's setting $2 (from wherever it is configured) as variable $1, unless that is set.
hand_on() {
    local value
    value=$(sed -n -E "s/^(:env:|global|install)\.$2='(.*)'\$/\2/p" <<<"$pip_settings" | head -n 1)
    value=$(sed 's/\\n/ /g' <<<"$value" | xargs)
    [[ $1 != UV_FIND_LINKS ]] || value=${value// /,}
    [[ -z $value || -n ${!1:-} ]] || export "$1=$value"
}

# uv does not read pip's configuration.
configure_uv() {
    local pip_settings
    pip_settings=$("$VENV/bin/python" -m pip config list 2>/dev/null || true)
    hand_on UV_DEFAULT_INDEX index-url
    hand_on UV_INDEX extra-index-url
    hand_on UV_FIND_LINKS find-links
    hand_on UV_NO_INDEX no-index
    hand_on UV_INSECURE_HOST trusted-host
    hand_on SSL_CERT_FILE cert
    hand_on ALL_PROXY proxy
    # As pip does: the best version of all sources, instead of the first source that has the name.
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
}

# Compiled here: every process would do it again where PYTHONDONTWRITEBYTECODE is set, 2 s for torch.
uv_install() {
    "$VENV/bin/uv" pip install --python "$VENV/bin/python" --constraints constraints.txt \
        --compile-bytecode "$@"
}

install_torch() {
    if [[ $1 == gpu ]]; then
        uv_install "torch==$TORCH_VERSION"
    elif ! uv_install "torch==$TORCH_VERSION+cpu" 2>>"$LOG"; then
        uv_install --index "$TORCH_CPU_INDEX" "torch==$TORCH_VERSION+cpu"
    fi
}

build() {
    local python=$1 accelerator=$2 needed_gb=$NEEDED_GB_CPU overrides=(--overrides overrides.txt)
    if [[ $accelerator == cpu ]]; then
        overrides+=(--overrides overrides-cpu.txt)
    else
        needed_gb=$NEEDED_GB_GPU
    fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module; on Debian and Ubuntu install the package python3-venv."
    command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
        fail "a C compiler is needed (gcc or clang); on Debian and Ubuntu install the package build-essential."
    check_space "$needed_gb"

    echo "setup: building .venv for $accelerator with $("$python" --version); a few minutes the first time" >&2
    rm -rf "$VENV"
    "$python" -m venv "$VENV" || fail "$python cannot create a virtual environment in $PWD/$VENV."
    "$VENV/bin/python" -m pip --disable-pip-version-check install --quiet --retries 2 \
        --constraint constraints.txt uv 2>"$LOG" ||
        fail "uv cannot be installed: no network, or no package registry that pip can reach ($LOG has the details)."
    configure_uv
    echo "setup: 1/2 torch $TORCH_VERSION" >&2
    install_torch "$accelerator" ||
        fail "torch $TORCH_VERSION for $accelerator is neither in pip's sources nor at $TORCH_CPU_INDEX, or there is no network ($LOG has the details)."
    echo "setup: 2/2 ray, vllm, transformers and the rest" >&2
    uv_install "${overrides[@]}" -e ".[$accelerator${EXTRAS:+,$EXTRAS}]" ||
        fail "the packages above could not be installed: no network, disk full, or a package without a build for this machine."
}

add_bench() {
    local overrides=(--overrides overrides.txt)
    "$VENV/bin/python" -c 'import datatrove, orjson, trl' 2>/dev/null && return
    [[ $1 == gpu ]] || overrides+=(--overrides overrides-cpu.txt)
    configure_uv
    uv_install --quiet "${overrides[@]}" -e ".[$1${EXTRAS:+,$EXTRAS},bench]" ||
        fail "what benchmarks/ measures against (TRL, datatrove) could not be installed; see the messages above."
}

# Where an archive of this environment lies in the shared folder, if there is such a folder.
archive_of() {
    [[ -z ${CODEPMP_ENVIRONMENTS:-} || ! -d $(dirname "$CODEPMP_ENVIRONMENTS") ]] ||
        echo "$CODEPMP_ENVIRONMENTS/$(wanted_stamp "$1" "$2").tar"
}

unpack() {
    [[ -n $1 && -f $1 ]] || return
    echo "setup: unpacking $1" >&2
    rm -rf "$VENV"
    tar -xf "$1" && "$VENV/bin/python" -c "" && return
    echo "setup: $1 cannot be used here; building" >&2
    return 1
}

# Under a name of its own first: others see a whole archive or none. Who cannot write has built anyway.
pack() {
    local own
    [[ -n $1 && ! -e $1 ]] || return 0
    own="$1.$HOSTNAME.$$"
    { mkdir -p "$CODEPMP_ENVIRONMENTS" && tar -cf "$own" "$VENV" && mv "$own" "$1"; } 2>>"$LOG" || {
        rm -f "$own"
        echo "setup: $1 could not be written; others build for themselves" >&2
    }
}

main() {
    local accelerator python archive
    accelerator=$(find_accelerator)
    if command -v flock >/dev/null; then
        # Locked through a file that is always there; opened for appending because NFS asks for it.
        exec 9>>constraints.txt
        flock --nonblock 9 || { echo "setup: waiting for another setup to finish" >&2; flock 9; }
    fi
    if [[ -f $STAMP && -x $VENV/bin/python ]] &&
        [[ $(wanted_stamp "$VENV/bin/python" "$accelerator") == "$(<"$STAMP")" ]]; then
        [[ ${1:-} != bench ]] || add_bench "$accelerator"
        return
    fi
    python=$(find_python)
    trap 'fail "interrupted; the next run starts over with what was downloaded."' INT TERM
    archive=$(archive_of "$python" "$accelerator")
    unpack "$archive" || build "$python" "$accelerator"
    wanted_stamp "$VENV/bin/python" "$accelerator" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    pack "$archive"
    [[ ${1:-} != bench ]] || add_bench "$accelerator"
    echo "setup: done ($SECONDS s)" >&2
}

main "$@"
