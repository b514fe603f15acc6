"""A run in a few words: a row per stage and the headline. Shared by report and terminal."""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.analysis.closing import rules
from codepmp_ray.analysis.outcomes import EvaluationData, SamplingData
from codepmp_ray.analysis.rundata import RunData, StageState
from codepmp_ray.analysis.text import MIN_HEADLINE_ITEMS, duration, percent
from codepmp_ray.analysis.trainlog import TrainingData

_TITLES = {
    "corpus": "Corpus",
    "synthesis": "Synthesis",
    "pretraining": "Pretraining (PMP)",
    "candidates": "Sampling",
    "grades": "Grading",
    "finetuning": "Finetuning (RM)",
    "evaluation": "Best-of-N",
    "scoring": "Batch scoring",
}
NOT_EVALUATED = "No verdict: the best-of-N evaluation of this run is missing."


@dataclass(frozen=True)
class StageRow:
    """One line of the stage table; `num_rejected` is None where a stage rejects nothing."""

    state: StageState
    title: str
    came_out: str
    num_rejected: int | None

    @property
    def time(self) -> str:
        return duration(self.state.duration_s) if self.state.status == "complete" else "-"


def stage_rows(run: RunData) -> list[StageRow]:
    return [_row(run, state) for state in run.stages.values()]


def _row(run: RunData, state: StageState) -> StageRow:
    title = _TITLES[state.name]
    if state.status == "missing":
        return StageRow(state, title, f"python -m jobs.{state.job} makes it", None)
    came_out, num_rejected = _product(run, state.name)
    if state.status == "unfinished":
        came_out = f"so far: {came_out}"
    return StageRow(state, title, came_out, num_rejected)


def _product(run: RunData, name: str) -> tuple[str, int | None]:
    if name == "corpus" and run.corpus:
        corpus = run.corpus
        text = f"{corpus.num_snippets:,} snippets of {corpus.num_files:,} files"
        return text, corpus.num_rejected
    if name == "synthesis" and run.synthesis:
        pairs = run.synthesis
        return f"{pairs.num_pairs:,} pairs of {pairs.num_snippets:,} snippets", pairs.num_rejected
    if name == "pretraining" and run.pretraining:
        return _training(run.pretraining)
    if name == "finetuning" and run.finetuning:
        return _training(run.finetuning)
    if name == "candidates" and run.sampling:
        problems = sum(split.num_problems for split in run.sampling.splits)
        return f"{run.sampling.num_answers:,} answers to {problems:,} problems", None
    if name == "grades":
        return _grades(run.sampling), None
    if name == "evaluation":
        return _evaluation(run.evaluation), None
    if name == "scoring" and run.scoring:
        rows = run.scoring.num_rows
        text = f"candidates of {rows['scores']:,} of {run.scoring.num_input_rows:,} rows scored"
        return text, rows["rejected"]
    return "no figures", None


def _training(data: TrainingData) -> tuple[str, int]:
    held_out = data.held_out
    tail = ""
    if held_out and held_out.num_pairs < MIN_HEADLINE_ITEMS:
        tail = f", {held_out.num_pairs} held-out pairs: too few to tell"
    elif held_out:
        tail = f", held-out accuracy {percent(held_out.accuracy)} of {held_out.num_pairs:,} pairs"
    unit = "step" if data.num_steps == 1 else "steps"
    return f"{data.num_steps:,} {unit}{tail}", sum(data.reasons.values())


def _evaluation(data: EvaluationData | None) -> str:
    results = data.results if data else {}
    if results and results["num_problems"] < MIN_HEADLINE_ITEMS:
        return f"{results['num_problems']} problems: too few to tell"
    solved = {rule.name: percent(rule.solved[0]) for rule in rules(results, {})}
    if not solved:
        return "no figures"
    best = f"best of {results['bon']['k'][-1]}: {solved['reward_model']} solved"
    return f"{best}, random pick {solved['random']}"


def _grades(data: SamplingData | None) -> str:
    if data is None:
        return "no figures"
    num_graded = sum(split.num_graded for split in data.splits)
    num_passed = sum(split.num_passed or 0 for split in data.splits)
    return f"{num_passed:,} of {num_graded:,} answers pass"
