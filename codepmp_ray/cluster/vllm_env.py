"""Environment of a vLLM engine process on CPU: threads, cache size, preloaded libraries, logging.

Call `apply(cpu_engine_environment(...))` in the process that makes the engine, on the machine that
runs it, before vllm is imported. Three traps are solved here and nowhere else:

- Ray sets OMP_NUM_THREADS from an actor's num_cpus, and vLLM keeps a core for itself, so that a
  small machine computes with one thread. Both are overridden.
- vLLM adds torch's OpenMP (and its allocator, where the wheel has one) to LD_PRELOAD, which the
  dynamic linker splits at spaces and colons. Under a path that has one of those the libraries are
  silently lost; they are preloaded through a link whose path has none.
- torch.compile fails under a path with a space, and vLLM's sampler uses it; it is turned off there.
- The engine and the machine's other work share cores: threads are bound to cores only where the
  engine may use all of them. Two engines with a few threads each would bind to the same cores.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path

from codepmp_ray.cluster.space_free import path_without_separators

_OPENMP_NAMES = ("libgomp", "libomp", "libiomp")
_ALLOCATOR_NAMES = ("libtcmalloc",)


def cpu_engine_environment(cpu_threads: int | None, kv_cache_gb: float) -> dict[str, str]:
    """Variables for one engine.

    Args:
        cpu_threads: threads of the model's forward; None for every core this process may use.
        kv_cache_gb: size of the KV cache in GiB; vLLM reads whole numbers, so it is rounded up.
    """
    cores = sorted(os.sched_getaffinity(0))
    threads = min(cpu_threads or len(cores), len(cores))
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": core_list(cores) if threads == len(cores) else "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, math.ceil(kv_cache_gb))),
        **preload_environment(os.environ.get("LD_PRELOAD", "")),
        **compilation_environment(),
        **quiet_environment(),
    }


def compilation_environment(site_packages: Path | None = None) -> dict[str, str]:
    """Turns torch.compile off where it cannot work, {} elsewhere.

    vLLM compiles parts of its sampler even when told to be eager, and torch hands the linker its
    own folder unquoted: below a path with a space the first request kills the engine.
    """
    torch = _package("torch", site_packages)
    return {"TORCHDYNAMO_DISABLE": "1"} if torch is not None and " " in str(torch) else {}


def quiet_environment() -> dict[str, str]:
    """No usage statistics; warnings only unless the user asked for more. For GPU engines too."""
    return {
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def apply(env: dict[str, str]) -> None:
    """Set `env` in this process; engine processes that it starts inherit it."""
    os.environ.update(env)


def is_cpu_build() -> bool:
    """True where the installed vLLM computes on CPU. Imports vllm."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def core_list(cores: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5", the form of VLLM_CPU_OMP_THREADS_BIND."""
    spans: list[list[int]] = []
    for core in cores:
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)


def preload_environment(current: str, site_packages: Path | None = None) -> dict[str, str]:
    """{"LD_PRELOAD": ...} with torch's OpenMP and vLLM's allocator, or {} when nothing is to add.

    Args:
        current: LD_PRELOAD as it is; its entries stay, and a library named there is not added.
        site_packages: where torch and vllm lie; None looks them up without importing them.
    """
    if not sys.platform.startswith("linux"):
        return {}
    torch = _package("torch", site_packages)
    vllm = _package("vllm", site_packages)
    openmp = [torch.parent / "torch.libs", torch / "lib"] if torch else []
    allocator = [vllm / "libs"] if vllm else []
    added = [
        path_without_separators(library)
        for names, folders in ((_ALLOCATOR_NAMES, allocator), (_OPENMP_NAMES, openmp))
        if not any(name in current for name in names)
        and (library := _first_library(folders, names)) is not None
    ]
    if not added:
        return {}
    return {"LD_PRELOAD": ":".join([*(str(path) for path in added), *filter(None, [current])])}


def _package(name: str, site_packages: Path | None) -> Path | None:
    if site_packages is not None:
        folder = site_packages / name
        return folder if folder.is_dir() else None
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _first_library(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    for name in names:
        for folder in folders:
            found = sorted(folder.glob(f"{name}*.so*"))
            if found:
                return found[0]
    return None
