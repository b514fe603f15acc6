"""The models of one service by their names, and ensembles of all of them under names of their own.

Rewards of different models have different zeros and scales, so an ensemble is of rewards in
standard deviations from each model's own mean (`score_mean`, `score_std`), and is served only where
every model has these. It is the mean, or that less `lower_bound_stds` standard deviations of the
models' rewards: what they disagree on is preferred less (Coste et al. 2023, arXiv 2310.02743).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev

from codepmp_ray.errors import DeadlineError, InputError
from codepmp_ray.scoring.best_of_n import BestOfN, ScoredCandidate, ScoringRequest

from .auth import digest_of
from .errors import ApiError, Unavailable
from .observation import Metrics
from .scoring import ModelPath, ScoringPath, all_of
from .settings import ModelFacts

logger = logging.getLogger("ray.serve")
ENSEMBLE, LOWER_BOUND = "ensemble", "ensemble-lower"


@dataclass(frozen=True)
class JointlyScored(ScoredCandidate):
    """A candidate that several models scored.

    Attributes:
        score: in standard deviations.
        num_tokens: of all models together.
        disagreement: standard deviation of the models' rewards, each in its own standard
            deviations. None without a score.
        by_model: raw rewards.
    """

    disagreement: float | None = None
    by_model: dict[str, float | None] | None = None


class Ensemble(ScoringPath):
    """All `members` as one model: the mean of their rewards less `num_stds` standard deviations."""

    def __init__(self, name: str, members: Sequence[ModelPath], num_stds: float) -> None:
        first = members[0]
        lengths = [m.facts.max_model_len for m in members if m.facts.max_model_len is not None]
        facts = ModelFacts(
            model_name=name,
            max_model_len=min(lengths, default=None),
            label=first.facts.label,
        )
        super().__init__(facts, first.cut)
        self.members, self._num_stds = members, num_stds

    @property
    def weights_digest(self) -> str | None:
        return _digest_of([member.weights_digest for member in self.members])

    async def score_each(
        self, caller: str, requests: Sequence[ScoringRequest]
    ) -> list[BestOfN | InputError]:
        """See ScoringPath. Every model is asked at once; one that fails is named."""
        for request in requests:
            if request.stages is not None:
                raise _not_of_ensembles("stages")
            if not all(isinstance(text, str) for text in request.candidates):
                raise _not_of_ensembles("input", "token ids are those of one model")
        found = await all_of([self._by(member, caller, requests) for member in self.members])
        results = [self._joined(outcomes) for outcomes in zip(*found, strict=True)]
        self._tell([result for result in results if isinstance(result, BestOfN)])
        return results

    async def tokenize(self, caller: str, request: ScoringRequest) -> list[int]:
        raise _not_of_ensembles("model", "token ids are those of one model")

    async def check_ready(self) -> int | None:
        found = [await member.check_ready() for member in self.members]
        return None if None in found else sum(num for num in found if num is not None)

    async def _by(
        self, member: ModelPath, caller: str, requests: Sequence[ScoringRequest]
    ) -> list[BestOfN | InputError]:
        try:
            return await member.score_each(caller, requests)
        except (ApiError, DeadlineError, Unavailable):
            raise
        except Exception as error:
            # Type only, as everywhere: messages of engines may quote the prompt.
            logger.error("The model %s failed with %s.", member.model_name, type(error).__name__)
            message = f"The model {member.model_name!r} failed to answer this request."
            raise ApiError(500, message) from error

    def _joined(self, outcomes: Sequence[BestOfN | InputError]) -> BestOfN | InputError:
        results: dict[str, BestOfN] = {}
        for member, outcome in zip(self.members, outcomes, strict=True):
            if isinstance(outcome, InputError):
                said = f"{outcome.problem} So it is for the model {member.model_name!r}."
                return InputError(said, outcome.remedy)
            results[member.model_name] = outcome
        items = [
            self._candidate(dict(zip(results, found, strict=True)))
            for found in zip(*(result.candidates for result in results.values()), strict=True)
        ]
        scores = {item.index: item.score for item in items if item.score is not None}
        order = sorted(scores, key=lambda index: -scores[index])  # of equal ones the first
        ranks = {index: rank for rank, index in enumerate(order, start=1)}
        return BestOfN(
            best_index=order[0] if order else None,
            candidates=[replace(item, rank=ranks.get(item.index)) for item in items],
            num_prompt_tokens=sum(result.num_prompt_tokens for result in results.values()),
            num_response_tokens=sum(result.num_response_tokens for result in results.values()),
            num_cached_prompt_tokens=sum(r.num_cached_prompt_tokens for r in results.values()),
            weights_digest=_digest_of([result.weights_digest for result in results.values()]),
        )

    def _candidate(self, found: dict[str, ScoredCandidate]) -> JointlyScored:
        """One candidate of every model, without its rank. One without a reward of some has none."""
        items = [*found.values()]
        without = next((item for item in items if item.score is None), None)
        score = disagreement = None
        if without is None:
            rewards = [
                (item.score - member.facts.calibration.mean) / member.facts.calibration.std
                for member, item in zip(self.members, items, strict=True)
                if item.score is not None and member.facts.calibration is not None
            ]
            disagreement = pstdev(rewards)
            score = fmean(rewards) - self._num_stds * disagreement
        return JointlyScored(
            index=items[0].index,
            score=score,
            rank=None,
            num_tokens=sum(item.num_tokens for item in items),
            truncated=any(item.truncated for item in items),
            duplicate_of=items[0].duplicate_of,
            missing=without and without.missing,
            disagreement=disagreement,
            by_model={name: item.score for name, item in found.items()},
        )


class Models:
    """What requests may name as their `model`.

    Args:
        models: the first is that of requests that name none.
        lower_bound_stds: of LOWER_BOUND.

    Attributes:
        single: by name; ensembles are left out.
        all: with ensembles.
    """

    def __init__(
        self, models: Sequence[ModelPath], metrics: Metrics, lower_bound_stds: float = 1.0
    ) -> None:
        self.single = {model.model_name: model for model in models}
        self.all: dict[str, ScoringPath] = {**self.single}
        if len(models) > 1 and all(model.facts.calibration for model in models):
            for name, num_stds in ((ENSEMBLE, 0.0), (LOWER_BOUND, lower_bound_stds)):
                self.all[name] = Ensemble(name, models, num_stds)
        gates = [model.admission for model in models]
        metrics.in_flight.set_function(lambda: sum(gate.num_running_tokens for gate in gates))
        metrics.waiting.set_function(lambda: sum(gate.num_waiting_tokens for gate in gates))

    def of(self, name: str | None) -> ScoringPath:
        """Raises ApiError 404 for a model that is not served."""
        if name is None:
            return next(iter(self.all.values()))
        if name not in self.all:
            served = ", ".join(map(repr, self.all))
            served += " is" if len(self.all) == 1 else " are"
            if name in (ENSEMBLE, LOWER_BOUND):
                served += "; an ensemble needs several models, each with score_mean and score_std"
            raise ApiError(
                404,
                f"The model {name!r} is not served here; {served}.",
                param="model",
                code="model_not_found",
            )
        return self.all[name]

    def one(self, name: str | None) -> ModelPath:
        """`of`, and ApiError 422 for an ensemble."""
        model = self.of(name)
        if not isinstance(model, ModelPath):
            raise _not_of_ensembles("model")
        return model

    async def away(self) -> list[str]:
        """Names of the models by which nothing would be scored now."""

        async def is_away(model: ModelPath) -> bool:
            try:
                await model.check_ready()
            except Unavailable:
                return True
            return False

        found = await all_of([is_away(model) for model in self.single.values()])
        return [name for name, gone in zip(self.single, found, strict=True) if gone]


def _digest_of(digests: Sequence[str | None]) -> str | None:
    """Of all together: other weights of one model change it."""
    known = [digest for digest in digests if digest is not None]
    return digest_of("\n".join(known)) if len(known) == len(digests) else None


def _not_of_ensembles(param: str, why: str = "name one model") -> ApiError:
    return ApiError(422, f"{param}: an ensemble does not take it: {why}.", param=param)
