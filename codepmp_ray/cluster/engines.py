"""Generation engines inside Ray actors: vLLM, and a fake one for tests of the control plane."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from codepmp_ray.cluster.vllm_env import apply, cpu_engine_environment
from codepmp_ray.cluster.vllm_process import first_line, load_tokenizer, start_engine
from codepmp_ray.config.engines import PLAIN, EngineConfig, SamplingConfig
from codepmp_ray.errors import EngineError, ModelError
from codepmp_ray.evaluation.tasks.code import INSTRUCTION
from codepmp_ray.hub_models import hub_model
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.control_tokens import ControlTokens
from codepmp_ray.storage.inputs import input_file
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
        model = name if hub else resolve_model(name)
        self._max_model_len = config.max_model_len
        self._config = config
        # What is wrong with template or parser is said before the weights load.
        self._tokenizer: Any = load_tokenizer(model, arguments)
        self._template = _template_text(config)
        try:
            self._chat_ids("x")
        except _TEMPLATE_ERRORS as error:
            raise ModelError(
                f"The chat template of {config.written_name} cannot be used: {first_line(error)}.",
                "Set engines.*.chat_template to a Jinja file, or to plain for a base model.",
            ) from error
        self._reasoning = _reasoning_parser(config, self._tokenizer)
        self._engine = start_engine(
            model,
            arguments,
            "Check the model name, dtype, max_model_len and engine_args of the engine.",
        )

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            prompt_ids = self._chat_ids(user_message)
        except _TEMPLATE_ERRORS as error:
            raise EngineError(f"The chat template refused it: {first_line(error)}.") from error
        room = self._max_model_len - len(prompt_ids)
        if room < sampling.max_tokens:
            raise ContextOverflow(
                f"The prompt has {len(prompt_ids)} tokens and leaves {max(room, 0)} of "
                f"max_model_len={self._max_model_len} for an answer of up to {sampling.max_tokens}."
            )
        request_id = uuid.uuid4().hex
        try:
            params = SamplingParams(
                **sampling.model_dump(exclude={"stop"}),
                stop=list(sampling.stop) or None,
                skip_special_tokens=self._reasoning is None,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            prompt = TokensPrompt(prompt_token_ids=prompt_ids)
            async for output in self._engine.generate(prompt, params, request_id):
                answer = output.outputs[0]
                text, is_open = self._without_thought(answer.text)
                num_tokens = len(answer.token_ids)
                return Completion(text, str(answer.finish_reason), num_tokens, is_open)
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
        message = self._control.mark(user_message)
        if self._template == PLAIN:
            return self._first_ids + self._control.ids([f"{message}\n\n"])[0]
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            chat_template=self._template,
            add_generation_prompt=True,
            tokenize=False,
            **self._config.chat_template_kwargs,
        )
        return self._control.ids([text])[0]

    @cached_property
    def _first_ids(self) -> list[int]:
        """The token that the tokenizer begins every text with, if it does."""
        first = self._tokenizer("x")["input_ids"][:1]
        return first if first == [self._tokenizer.bos_token_id] else []

    def _without_thought(self, text: str) -> tuple[str, bool]:
        """As `split_thought`, by vLLM's parser if there is one."""
        if self._reasoning is None:
            return text, False  # left to the usual tags
        _, answer = self._reasoning(text)
        return answer or "", answer is None


# What rendering a chat template raises: none is there, it refuses, it is not Jinja.
_TEMPLATE_ERRORS = (TemplateError, ValueError, TypeError, KeyError, AttributeError)


def _template_text(config: EngineConfig) -> str | None:
    """`chat_template` as text or PLAIN; None for the model's own. Raises ModelError."""
    if config.template_file is None:
        return config.chat_template
    try:
        return input_file(config.template_file).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"engines.*.chat_template={config.template_file!r} cannot be read ({error}).",
            "Name a Jinja file that every node sees, or write plain.",
        ) from error


def _reasoning_parser(
    config: EngineConfig, tokenizer: Any
) -> Callable[[str], tuple[str | None, str | None]] | None:
    """Text -> (thought, answer) as vLLM's parser has it. Raises ModelError where none serves."""
    name, kwargs = config.reasoning_parser, config.chat_template_kwargs
    if name is None:
        return None
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.reasoning import ReasoningParserManager

    try:
        kind = ReasoningParserManager.get_reasoning_parser(name)
        parser = kind(tokenizer, chat_template_kwargs=kwargs)
        request = ChatCompletionRequest(
            messages=[{"role": "user", "content": "x"}], chat_template_kwargs=kwargs, seed=None
        )
        parser.extract_reasoning("x", request)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:  # also what is not implemented
        raise ModelError(
            f"engines.*.reasoning_parser={name!r} does not serve {config.written_name}: "
            f"{first_line(error)}.",
            "Name the parser of the model's family in vLLM's documentation, or leave it out: "
            "thoughts in the usual tags are taken out anyway.",
        ) from error
    return lambda text: parser.extract_reasoning(text, request)


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
        # It was shown code, but not to complete it: to describe it.
        if "```" in user_message and not user_message.startswith(INSTRUCTION):
            text = f"Write a function that returns the text {digest} and does nothing else."
        return Completion(text, "stop", 16)
