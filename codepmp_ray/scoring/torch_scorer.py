"""The reference scorer: plain transformers, padded rows, the reward read by index.

It computes prompt + response for every response and shares nothing. Slow and obvious on purpose:
the production engine is measured against it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from codepmp_ray.errors import EngineError
from codepmp_ray.scoring.protocol import Scores, check_vocabulary


class TorchScorer:
    """Scores with an exported model in this process.

    Args:
        model: a transformers *ForSequenceClassification with num_labels=1.
        max_batch_tokens: rows x longest row of one forward; a single row may exceed it.
    """

    def __init__(self, model: Any, max_model_len: int, max_batch_tokens: int = 8192) -> None:
        self.max_model_len = max_model_len
        self._model = model.eval()
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._max_batch_tokens = max_batch_tokens
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
        work = self._thread.submit(self._rewards, prompt_ids, responses, stop)
        done = asyncio.wrap_future(work)
        try:
            await asyncio.wait([done], timeout=timeout_s)
            if work.cancel():  # it has not begun
                return Scores([None] * len(responses))
            stop.set()
            return Scores(await done)
        finally:
            # An abandoned request leaves the queue, or goes on no longer than its batch.
            work.cancel()
            stop.set()

    def stage_weights(self, folder: str) -> Any:
        from codepmp_ray.scoring.classifier import load_classifier

        model = load_classifier(folder, self._model.score.weight.dtype)
        return model.to(self._model.score.weight.device).eval()

    async def take_weights(self, staged: Any) -> None:
        self._model = staged

    def rewards(self, prompt_ids: list[int], responses: list[list[int]]) -> list[float]:
        """The same, in the calling thread. Raises EngineError when a forward fails."""
        found = self._rewards(prompt_ids, responses, threading.Event())
        return [reward for reward in found if reward is not None]

    def _rewards(
        self, prompt_ids: list[int], responses: list[list[int]], stop: threading.Event
    ) -> list[float | None]:
        check_vocabulary(prompt_ids, responses, self.vocab_size)
        rows = [prompt_ids + response for response in responses]
        result: list[float | None] = [None] * len(rows)
        try:
            for batch in _batches(rows, self._max_batch_tokens):
                if stop.is_set():
                    break
                for index, reward in zip(
                    batch, self._forward([rows[i] for i in batch]), strict=True
                ):
                    result[index] = reward
        except (RuntimeError, IndexError) as error:
            raise EngineError(f"A forward of the torch scorer failed: {error}.") from error
        return result

    def _forward(self, rows: list[list[int]]) -> list[float]:
        import torch

        device = self._model.device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        width = int(lengths.max())
        # The id in the padding does not matter: causal attention never looks right.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        mask = torch.arange(width, device=device)[None, :] < lengths[:, None]
        with torch.inference_mode():
            hidden = self._model.base_model(
                input_ids=ids, attention_mask=mask.long(), use_cache=False
            ).last_hidden_state
            # By index. A search for the pad id would skip a last token that equals it.
            last = hidden[torch.arange(len(rows), device=device), lengths - 1]
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
