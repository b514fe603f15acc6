"""Starting vLLM's engine process from ours, and ending ours when that one is gone."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from codepmp_ray.cluster.process_guard import guard_children
from codepmp_ray.cluster.vllm_env import is_cpu_build
from codepmp_ray.errors import ModelError

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


_CORES_OF_ONE_NODE = 8


def start_engine(model: str, arguments: dict[str, Any], remedy: str) -> AsyncLLM:
    """vLLM's AsyncLLM, guarded: its processes end with this one.

    The environment must have been applied before (see vllm_env).

    Raises:
        ModelError: with the first line of vLLM's own error, and `remedy`.
    """
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    quiet = {"enable_log_requests": False, "disable_log_stats": True}
    if is_cpu_build():
        arguments = _without_worker_process(arguments)
    try:
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **{**quiet, **arguments}))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"vLLM cannot start {model}: {first_line(error)}.", remedy) from error
    guard_children()
    return engine


def load_tokenizer(model: str, arguments: dict[str, Any]) -> Any:
    """The tokenizer that the engine of these `arguments` will use. Raises ModelError."""
    from vllm.tokenizers import get_tokenizer

    names = ("tokenizer_mode", "trust_remote_code")
    options = {name: arguments[name] for name in names if name in arguments}
    revision = arguments.get("tokenizer_revision")
    try:
        return get_tokenizer(arguments.get("tokenizer") or model, revision=revision, **options)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"The tokenizer of {model} cannot be loaded: {first_line(error)}.",
            "Name its folder in engine_args: {tokenizer: ...}.",
        ) from error


def _without_worker_process(arguments: dict[str, Any]) -> dict[str, Any]:
    """On a small machine the engine's process computes, and no worker process beside it.

    vLLM's CPU worker is a process of its own, so that it can bind threads to cores of one NUMA
    node; the engine spins while it waits for it. On two cores that spinning takes a core away from
    the computation, and the start takes half as long again. vLLM puts the worker back unless
    VLLM_ENABLE_V1_MULTIPROCESSING is 0, which AsyncLLM itself does not look at.
    """
    is_small = len(os.sched_getaffinity(0)) <= _CORES_OF_ONE_NODE
    is_alone = arguments.get("tensor_parallel_size", 1) == 1
    if not is_small or not is_alone or "distributed_executor_backend" in arguments:
        return arguments
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return {**arguments, "distributed_executor_backend": "uni"}


def leave_with_engine(error: Exception) -> NoReturn:
    """End this process: Ray starts another and repeats what this one was doing."""
    print(f"The engine process died ({first_line(error)}); leaving too.", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def first_line(error: BaseException) -> str:
    """What an error says, without the traceback that some libraries put into it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
