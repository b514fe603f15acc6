"""The scorer without vLLM: plain transformers, padded rows, the reward read by index.

In float32 the prompt of several responses is computed once: its keys and values are the cache that
every response begins with. Not every family of transformers goes on from a cache as it computes a
whole row, so the longest and the shortest row of a request are also computed whole, again whenever
rows have become twice as long; where rewards differ, whole rows are computed from then on.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from codepmp_ray.errors import EngineError, ModelError
from codepmp_ray.scoring.protocol import Scores, check_vocabulary

_log = logging.getLogger(__name__)

# Below it, a second forward costs more than it saves.
_MIN_SHARED_TOKENS = 16
# Of float32 sums in another order, relative to a reward of at least 1.
_TOLERANCE = 1e-4
# What families raise that have no cache, or one that cannot be repeated or gone on from.
_NO_CACHE = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


class TorchScorer:
    """Scores with an exported model in this process.

    Args:
        model: a transformers *ForSequenceClassification with num_labels=1.
        max_batch_tokens: rows x longest row of one forward; a single row may exceed it.
    """

    def __init__(self, model: Any, max_model_len: int, max_batch_tokens: int = 8192) -> None:
        import torch

        from codepmp_ray.modeling.backbones import require_positions

        self.max_model_len = max_model_len
        self._model = model.eval()
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._max_batch_tokens = max_batch_tokens
        self._shares_prompts = model.score.weight.dtype == torch.float32
        self._longest_checked = 0  # tokens of a row whose two rewards were equal
        try:
            require_positions(model.base_model, max_model_len)
        except ModelError:
            # Positions change with the longest row of a forward: each row has its own.
            self._max_batch_tokens, self._shares_prompts = 1, False
        # One thread: torch parallelises inside a forward, and the event loop stays free.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch-scorer")

    @classmethod
    def load(
        cls, folder: str | Path, max_model_len: int, dtype: str = "float32", device: str = "cpu"
    ) -> TorchScorer:
        """Load an export.

        Raises ModelError when it is missing, damaged, quantised or not a reward model, and when
        its files have tensors that the model does not.
        """
        import torch

        from codepmp_ray.scoring.classifier import load_classifier

        if device == "cpu":
            # Ray sets OMP_NUM_THREADS from num_cpus; the forward may use every core it is given.
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = load_classifier(folder, getattr(torch, dtype))
        return cls(model.to(device), max_model_len)

    async def score_ids(
        self,
        prompt_ids: list[int],
        responses: list[list[int]],
        timeout_s: float | None = None,
    ) -> Scores:
        stop = threading.Event()
        work = self._thread.submit(self._score, prompt_ids, responses, stop)
        done = asyncio.wrap_future(work)
        try:
            await asyncio.wait([done], timeout=timeout_s)
            if work.cancel():  # it has not begun
                return Scores([None] * len(responses))
            stop.set()
            return await done
        finally:
            # An abandoned request leaves the queue, or goes on no longer than its batch.
            work.cancel()
            stop.set()

    def stage_weights(self, folder: str) -> Any:
        from codepmp_ray.scoring.classifier import load_classifier

        model = load_classifier(folder, self._model.score.weight.dtype)
        return model.to(self._model.score.weight.device).eval()

    async def take_weights(self, staged: Any) -> None:
        self._model, self._longest_checked = staged, 0

    def rewards(self, prompt_ids: list[int], responses: list[list[int]]) -> list[float]:
        """The same, in the calling thread. Raises EngineError when a forward fails."""
        found = self._score(prompt_ids, responses, threading.Event())
        return [reward for reward in found.rewards if reward is not None]

    def _score(
        self, prompt_ids: list[int], responses: list[list[int]], stop: threading.Event
    ) -> Scores:
        """Scores of as many responses as are computed before `stop` is set."""
        check_vocabulary(prompt_ids, responses, self.vocab_size)
        rows = [prompt_ids + response for response in responses]
        rewards: list[float | None] = [None] * len(rows)
        num_shared = 0
        try:
            cache = self._prompt_cache(prompt_ids, responses)
            if cache is not None:
                num_shared = len(prompt_ids)
            for batch in _batches(rows, self._max_batch_tokens):
                if stop.is_set():
                    break
                found = self._forward([rows[i] for i in batch], cache, num_shared)
                for index, reward in zip(batch, found, strict=True):
                    rewards[index] = reward
        except (RuntimeError, IndexError) as error:
            raise EngineError(f"A forward of the torch scorer failed: {error}.") from error
        num_computed = sum(reward is not None for reward in rewards)
        return Scores(rewards, num_shared * max(0, num_computed - 1))

    def _prompt_cache(self, prompt_ids: list[int], responses: list[list[int]]) -> Any:
        """Keys and values of the prompt; None where every row is to be computed whole."""
        import torch

        is_worth_it = len(responses) > 1 and len(prompt_ids) >= _MIN_SHARED_TOKENS
        if not (self._shares_prompts and is_worth_it and all(responses)):
            return None
        ids = torch.tensor([prompt_ids], device=self._model.device)
        # The longest and, padded beside it, the shortest.
        ends = [prompt_ids + select(responses, key=len) for select in (max, min)]
        longest = len(ends[0])
        cache: Any = None
        try:
            with torch.inference_mode():
                cache = self._model.base_model(input_ids=ids, use_cache=True).past_key_values
            if longest <= 2 * self._longest_checked:
                return cache
            shared = self._forward(ends, cache, len(prompt_ids))
            why = "its rewards differ"
        except _NO_CACHE as error:
            shared, why = [], f"{type(error).__name__}: {error}"
        whole = [self._forward([row])[0] for row in ends]
        if any(reward != reward for reward in whole):  # NaN: there is nothing to compare
            return None
        if shared and all(
            abs(one - other) <= _TOLERANCE * max(1.0, abs(other))
            for one, other in zip(shared, whole, strict=True)
        ):
            self._longest_checked = longest
            return cache
        self._shares_prompts = False
        kind = self._model.config.model_type
        _log.warning("%s does not go on from a cached prompt (%s): rows are whole.", kind, why)
        return None

    def _forward(
        self, rows: list[list[int]], cache: Any = None, num_cached: int = 0
    ) -> list[float]:
        """Rewards of rows, whose first `num_cached` tokens are in `cache`."""
        import torch

        device = self._model.device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        width = int(lengths.max())
        # The id in the padding does not matter: causal attention never looks right.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        mask = torch.arange(width, device=device)[None, :] < lengths[:, None]
        with torch.inference_mode():
            options: dict[str, Any] = {"use_cache": False}
            if cache is not None:
                cache = copy.deepcopy(cache)  # a forward writes into it
                cache.batch_repeat_interleave(len(rows))
                options = {"use_cache": True, "past_key_values": cache}
            hidden = self._model.base_model(
                input_ids=ids[:, num_cached:], attention_mask=mask.long(), **options
            ).last_hidden_state
            # By index. A search for the pad id would skip a last token that equals it.
            last = hidden[torch.arange(len(rows), device=device), lengths - num_cached - 1]
            weight = self._model.score.weight.float()
            return torch.nn.functional.linear(last.float(), weight)[:, 0].tolist()


def _batches(rows: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Indices of rows grouped by similar length, each group padded to at most `max_tokens`."""
    groups: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        # Rows come by growing length, so this row sets the width of its group.
        if groups and (len(groups[-1]) + 1) * len(rows[index]) <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
