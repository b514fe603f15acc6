"""The production scorer: vLLM's pooling engine, one copy of the weights, prompts computed once.

Every response is a request of its own that begins with the same ids; prefix caching finds the
prompt's full blocks of `block_size` tokens in the cache. The pooled position is the last token by
index, whatever its id is, and the reward is the head's output without an activation.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

from codepmp_ray.cluster.vllm_env import apply, cpu_engine_environment, is_cpu_build
from codepmp_ray.cluster.vllm_process import first_line, leave_with_engine, start_engine
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import EngineError
from codepmp_ray.scoring.protocol import Scores, check_vocabulary
from codepmp_ray.synthesis.engine import EngineDied


class VLLMScorer:
    """A Scorer. When the engine's process dies, so does this one: Ray Serve starts another.

    `on_death` may raise EngineDied instead, for whoever has something to write down first.
    """

    def __init__(
        self,
        model_path: str,
        config: ServingConfig,
        num_gpus: float = 0.0,
        on_death: Callable[[Exception], NoReturn] = leave_with_engine,
    ) -> None:
        self._on_death = on_death
        # Before vllm is imported: parts of it read the environment at import.
        apply(cpu_engine_environment(None, config.kv_cache_gb))
        self.max_model_len = config.max_model_len
        self._engine = start_engine(
            model_path,
            engine_arguments(config, num_gpus, is_cpu_build()),
            "Check serving.dtype, max_model_len, block_size and kv_cache_gb.",
        )
        self.vocab_size = int(self._engine.model_config.get_vocab_size())

    async def score_ids(
        self,
        prompt_ids: list[int],
        responses: list[list[int]],
        timeout_s: float | None = None,
    ) -> Scores:
        check_vocabulary(prompt_ids, responses, self.vocab_size)
        outputs: list[tuple[float, int] | None] = [None] * len(responses)

        async def score(index: int) -> None:
            outputs[index] = await self._score_row(prompt_ids + responses[index])

        try:
            # Leaving the block, also because this request was abandoned, cancels what is not done,
            # and the engine drops those rows.
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                for index in range(len(responses)):
                    group.create_task(score(index))
        except TimeoutError:
            pass
        except BaseExceptionGroup as failures:
            raise _first_failure(failures) from failures
        # A response seen before is cached too; only the prompt's share is reported. Whole texts
        # hold their prompt somewhere in them: there it is all that was cached.
        cached = [output[1] for output in outputs if output]
        if prompt_ids:
            cached = [min(num_tokens, len(prompt_ids)) for num_tokens in cached]
        return Scores([output[0] if output else None for output in outputs], sum(cached))

    def stage_weights(self, folder: str) -> Any:
        return folder

    async def take_weights(self, staged: Any) -> None:
        """In place, by vLLM's own reload; a failure would leave half of them, so it ends the
        process.
        """
        try:
            await self._engine.collective_rpc("reload_weights", kwargs={"weights_path": staged})
            is_empty = await self._engine.reset_prefix_cache()
        except Exception as error:  # noqa: BLE001 - of the engine, or of its process
            leave_with_engine(error)
        if not is_empty:
            leave_with_engine(EngineError("The prefix cache holds blocks of the old weights."))

    async def check_health(self) -> None:
        """Raises (and leaves the process) when the engine is gone."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            leave_with_engine(error)

    def shutdown(self) -> None:
        """End the engine's processes."""
        self._engine.shutdown()

    async def _score_row(self, ids: list[int]) -> tuple[float, int]:
        from vllm import PoolingParams
        from vllm.inputs import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError

        params = PoolingParams(task="classify", use_activation=False)
        prompt = TokensPrompt(prompt_token_ids=ids)
        try:
            async for output in self._engine.encode(prompt, params, uuid.uuid4().hex):
                return float(output.outputs.data.item()), output.num_cached_tokens or 0
        except EngineDeadError as error:
            self._on_death(error)
        raise EngineError("vLLM ended a row without a score.")


def engine_arguments(config: ServingConfig, num_gpus: float, on_cpu: bool) -> dict[str, Any]:
    """What vLLM is started with. Its own defaults differ between its entry points, so those that
    decide about batches are given.
    """
    return {
        "runner": "pooling",
        "dtype": config.dtype,
        "quantization": config.quantization,
        "max_model_len": config.max_model_len,
        "block_size": block_size(config.block_size, on_cpu),
        "enable_prefix_caching": True,
        # A row is computed in one step, and eagerly. Last-token scores of rows that were split into
        # several steps under compilation have been wrong (vLLM's issue 48831, with a race over a
        # buffer left open), and nothing would show it. Prefill-only work gains little from either.
        "enable_chunked_prefill": False,
        "enforce_eager": True,
        "max_num_batched_tokens": max(2048 if on_cpu else 8192, config.max_model_len),
        "max_num_seqs": 256,
        "tensor_parallel_size": max(1, int(num_gpus)),
        # Of a GPU that replicas share each takes its part of vLLM's usual 0.9.
        "gpu_memory_utilization": 0.9 * (num_gpus if 0 < num_gpus < 1 else 1.0),
        "skip_tokenizer_init": True,  # it is fed with ids
    }


def block_size(wanted: int, on_cpu: bool) -> int:
    """Tokens of one cache block: what can be shared is whole blocks of a prompt.

    The CPU attention kernel takes multiples of 32 only and fails at start-up otherwise.
    """
    return math.ceil(wanted / 32) * 32 if on_cpu else wanted


def _first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group; the others are those of rows cancelled with it or like it."""
    first = failures.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return _first_failure(first)
    if isinstance(first, EngineError | EngineDied):
        return first
    return EngineError(f"vLLM refused a row: {type(first).__name__}: {first_line(first)}.")
