"""Rows of a request that is left, or late, leave vLLM too: each row's generator is cancelled, which
is where vLLM aborts it (AsyncLLM.encode). The engine here is a fake; no vllm is imported.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from codepmp_ray.cluster.vllm_scorer import VLLMScorer


class FakeEngine:
    """Scores rows of one token at once; the others stay until they are aborted."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.aborted: set[str] = set()

    async def encode(self, prompt: Any, params: Any, request_id: str) -> AsyncIterator[Any]:
        ids = prompt["prompt_token_ids"]
        if len(ids) > 1:
            self.running.add(request_id)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.aborted.add(request_id)
                raise
            finally:
                self.running.remove(request_id)
        data = SimpleNamespace(item=lambda: 2.5)
        yield SimpleNamespace(outputs=SimpleNamespace(data=data), num_cached_tokens=0)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    class EngineDeadError(Exception):
        pass

    fakes: dict[str, dict[str, Any]] = {
        "vllm": {"PoolingParams": lambda **fields: fields},
        "vllm.inputs": {"TokensPrompt": dict},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
    }
    for name, content in fakes.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return FakeEngine()


def scorer_over(engine: FakeEngine) -> VLLMScorer:
    scorer = VLLMScorer.__new__(VLLMScorer)
    made: Any = engine
    scorer._engine, scorer.vocab_size = made, 100
    return scorer


def test_a_request_that_is_left_leaves_no_row(engine: FakeEngine) -> None:
    async def test() -> None:
        task = asyncio.create_task(scorer_over(engine).score_ids([1], [[2]] * 50))
        while len(engine.running) < 50:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(test())
    assert not engine.running and len(engine.aborted) == 50


def test_rows_that_are_late_are_dropped_and_the_others_kept(engine: FakeEngine) -> None:
    scores = asyncio.run(scorer_over(engine).score_ids([], [[1], [2, 3], [4]], timeout_s=0.1))
    assert scores.rewards == [2.5, None, 2.5]
    assert not engine.running and len(engine.aborted) == 1
