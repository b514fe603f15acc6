"""Everything that the report and the closing table say about a run, read from its folders.

Numbers come from the committed tables and metric files, never from what a job printed. A stage that
is missing is None here; one that is not finished has the rows committed so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from codepmp_ray.analysis.outcomes import (
    EvaluationData,
    SamplingData,
    load_evaluation,
    load_sampling,
)
from codepmp_ray.analysis.scaling import ScalingPoint, load_scaling
from codepmp_ray.analysis.tables import CorpusData, SynthesisData, load_corpus, load_synthesis
from codepmp_ray.analysis.trainlog import TrainingData, load_training
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import STAGE_COMMANDS, Stage, stages_of_run
from codepmp_ray.shard_markers import Totals

Status = Literal["complete", "unfinished", "missing"]


@dataclass(frozen=True)
class StageState:
    """How far one stage is. `summary` and `manifest` are empty where the file is not there."""

    name: str
    command: str
    status: Status
    fingerprint: str
    folder: str
    summary: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def duration_s(self) -> float | None:
        """What the job recorded; otherwise from the manifest, which a resumed job writes anew."""
        recorded = self.summary.get("duration_s")
        if isinstance(recorded, int | float):
            return float(recorded)
        started, finished = self.manifest.get("written"), self.summary.get("finished")
        if not started or not finished:
            return None
        elapsed = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
        return max(elapsed.total_seconds(), 0.0)


@dataclass(frozen=True)
class RunData:
    """One run. `stages` has those of the main job in its order, then others that there are."""

    recipe: Recipe
    stages: dict[str, StageState]
    corpus: CorpusData | None
    synthesis: SynthesisData | None
    pretraining: TrainingData | None
    sampling: SamplingData | None
    finetuning: TrainingData | None
    evaluation: EvaluationData | None
    scaling: list[ScalingPoint]
    scoring: Totals | None

    @property
    def total_duration_s(self) -> float | None:
        known = [state.duration_s for state in self.stages.values() if state.duration_s is not None]
        return sum(known) if known else None


def load_run(recipe: Recipe) -> RunData:
    """Read what exists of the run of `recipe`. Raises StorageError for a damaged file."""
    stages = {stage.name: stage for stage in stages_of_run(recipe)}
    states = {name: _state(stage) for name, stage in stages.items()}

    def present(name: str) -> Stage | None:
        return None if states[name].status == "missing" else stages[name]

    corpus, synthesis = present("corpus"), present("synthesis")
    pretraining, finetuning = present("pretraining"), present("finetuning")
    candidates, grades, evaluation = present("candidates"), present("grades"), present("evaluation")
    return RunData(
        recipe,
        states,
        load_corpus(corpus) if corpus else None,
        load_synthesis(synthesis) if synthesis else None,
        load_training(pretraining) if pretraining else None,
        load_sampling(candidates, grades) if candidates else None,
        load_training(finetuning) if finetuning else None,
        load_evaluation(evaluation, candidates, grades) if evaluation else None,
        load_scaling(recipe),
        stages["scoring"].ledger.totals() if "scoring" in stages else None,
    )


def _state(stage: Stage) -> StageState:
    manifest = stage.has_begun
    status: Status = "complete" if stage.is_complete else "unfinished" if manifest else "missing"
    return StageState(
        stage.name,
        STAGE_COMMANDS[stage.name],
        status,
        stage.fingerprint,
        f"{stage.name}-{stage.fingerprint}",
        stage.summary() if stage.is_complete else {},
        stage.manifest(),
    )
