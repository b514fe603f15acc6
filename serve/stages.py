"""Requests with stages: candidates come through them first, then the scorer sees what is left."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import DeadlineError
from codepmp_ray.evaluation.stages import Screen
from codepmp_ray.scoring.best_of_n import BestOfN, Candidate, ScoredCandidate, ScoringRequest
from codepmp_ray.scoring.stages import Survivors


class StagedScoring:
    """Before a scorer: `best_of_n` of requests with stages and without."""

    def __init__(self, sandbox: SandboxConfig) -> None:
        self._screen = Screen(sandbox)
        # A long text must not hold up the event loop; these wait for programs, too.
        self._screening = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="screening")

    async def best_of_n(
        self, request: ScoringRequest, score: Callable[[ScoringRequest], Awaitable[BestOfN]]
    ) -> BestOfN:
        """By `score`, which is given what is left to choose among, and the time that is left.

        Programs of a caller who leaves, or whose time is up, are not begun any more. Raises
        DeadlineError, InputError for tests that are none, SandboxUnavailable, and what `score`
        raises.
        """
        asked = request.stages
        if asked is None:
            return await score(request)
        has_left = threading.Event()
        end_s = None if request.timeout_s is None else time.monotonic() + request.timeout_s

        def check() -> None:
            if has_left.is_set() or (end_s is not None and time.monotonic() > end_s):
                raise DeadlineError("The stages were not done in time.", "Allow more time.")

        texts = cast("Sequence[str]", request.candidates)  # ids have no stages
        try:
            survivors = await asyncio.get_running_loop().run_in_executor(
                self._screening, self._screen.survivors, texts, asked, check
            )
        finally:
            has_left.set()
        left = replace(
            request,
            candidates=[texts[place] for place in survivors.places],
            places=survivors.places,
            stages=None,
            timeout_s=None if end_s is None else max(end_s - time.monotonic(), 0.0),
        )
        return _with_fallen(await score(left), texts, survivors)


def _with_fallen(result: BestOfN, texts: Sequence[Candidate], survivors: Survivors) -> BestOfN:
    """The result for all `texts`, where `result` is of those at `survivors.places`."""
    first_of = {text: place for place, text in reversed(list(enumerate(texts)))}
    scored = dict(zip(survivors.places, result.candidates, strict=True))
    found = []
    for place, (text, stage) in enumerate(zip(texts, survivors.fell_at, strict=True)):
        item = scored.get(place) or ScoredCandidate(place, None, None, 0, False, None, "fell_out")
        first = None if first_of[text] == place else first_of[text]
        found.append(replace(item, index=place, duplicate_of=first, fell_out=stage))
    best = None if result.best_index is None else survivors.places[result.best_index]
    return replace(result, best_index=best, candidates=found, all_fell_at=survivors.all_fell_at)
