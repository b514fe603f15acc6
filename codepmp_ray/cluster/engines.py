"""Generation engines inside Ray actors: vLLM, and a fake one for tests of the control plane."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from functools import cached_property
from typing import Any

from codepmp_ray.cluster.vllm_env import apply, cpu_engine_environment
from codepmp_ray.cluster.vllm_process import first_line, start_engine
from codepmp_ray.config.engines import EngineConfig, SamplingConfig
from codepmp_ray.errors import EngineError
from codepmp_ray.hub_models import hub_model
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.control_tokens import ControlTokens
from codepmp_ray.synthesis.engine import Completion, ContextOverflow, EngineDied, TextEngine


def make_engine(config: EngineConfig) -> TextEngine:
    """The engine that `config` asks for; loading a model takes its time here."""
    return FakeEngine(config) if config.kind == "fake" else VLLMEngine(config)


class VLLMEngine:
    """vLLM's AsyncLLM: one copy of the weights, any number of requests in flight.

    When its process dies, every request fails with EngineDied.
    """

    def __init__(self, config: EngineConfig) -> None:
        apply(cpu_engine_environment(config.cpu_threads, config.kv_cache_gb))
        arguments = {
            "dtype": config.dtype,
            "max_model_len": config.max_model_len,
            "tensor_parallel_size": config.tensor_parallel_size,
            **config.engine_args,
        }
        name = config.model_name_or_path
        hub = hub_model(name, config.revision)
        if hub is not None:
            # vLLM fetches it by itself: it knows more formats than the trainers do.
            pinned = hub.at_commit()
            name = pinned.repo
            arguments |= {"revision": pinned.revision, "tokenizer_revision": pinned.revision}
        self._engine = start_engine(
            name if hub else resolve_model(name),
            arguments,
            "Check the model name, dtype, max_model_len and engine_args of the engine.",
        )
        self._tokenizer: Any = self._engine.get_tokenizer()
        self._max_model_len = config.max_model_len

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        prompt_ids = self._chat_ids(user_message)
        room = self._max_model_len - len(prompt_ids)
        if room < sampling.max_tokens:
            raise ContextOverflow(
                f"The prompt has {len(prompt_ids)} tokens and leaves {max(room, 0)} of "
                f"max_model_len={self._max_model_len} for an answer of up to {sampling.max_tokens}."
            )
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            min_tokens=sampling.min_tokens,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=sampling.include_stop_str_in_output,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        request_id = uuid.uuid4().hex
        try:
            prompt = TokensPrompt(prompt_token_ids=prompt_ids)
            async for output in self._engine.generate(prompt, params, request_id):
                answer = output.outputs[0]
                return Completion(answer.text, str(answer.finish_reason), len(answer.token_ids))
        except EngineDeadError as error:
            raise EngineDied(first_line(error)) from error
        except ValueError as error:
            raise EngineError(f"vLLM refused the request: {first_line(error)}.") from error
        raise EngineError("vLLM ended the request without an answer.")

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self._tokenizer)

    def _chat_ids(self, user_message: str) -> list[int]:
        # Code that is about control tokens does not end the user's turn.
        messages = [{"role": "user", "content": self._control.mark(user_message)}]
        text = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return self._control.ids([text])[0]


class FakeEngine:
    """Deterministic text without a model. For unit tests and control-plane benchmarks only."""

    def __init__(self, config: EngineConfig) -> None:
        self._latency_s = float(config.engine_args.get("latency_s", 0.0))
        self._fatal_text = config.engine_args.get("die_on")
        self._name = config.model_name_or_path

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        await asyncio.sleep(self._latency_s)
        if self._fatal_text and self._fatal_text in user_message:
            raise EngineDied("told to die")
        digest = hashlib.sha256(
            f"{self._name}|{sampling.temperature}|{user_message}".encode("utf-8", "surrogatepass")
        ).hexdigest()
        text = f"```python\ndef f_{digest[:8]}():\n    return '{digest}'\n```"
        return Completion(text, "stop", 16)
