"""What came out of a run: headline, one sentence, one small table, one plot; how long it took.

All of it is results.json's. The terminal shows it at the end of a run, the report at its beginning.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from codepmp_ray.analysis.outcomes import EvaluationData, SamplingData
from codepmp_ray.analysis.rundata import RunData, StageState, load_run
from codepmp_ray.analysis.text import MIN_HEADLINE_ITEMS, duration, percent, terminal_table, visible
from codepmp_ray.analysis.trainlog import HeldOut, TrainingData
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.storage import open_store

LABELS = {
    "reward_model": "reward model",
    "without_pmp": "the same without PMP",
    "random": "random pick",
    "length": "longest answer",
    "shortest": "shortest answer",
    "style": "rule of style",
    "majority": "majority vote",
    "oracle": "any right one (oracle)",
}
NULL_RULES = ("length", "shortest", "style")
# So many held-out pairs have to say that PMP learned its own task before anything is said of it.
MIN_PMP_PAIRS = 100
_MARKS, _ASCII_MARKS = "├─●┤│", "|-o||"
Range = tuple[float, float, float]  # mean, low, high; shares
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
        return StageRow(state, title, f"codepmp {state.command} makes it", None)
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


@dataclass(frozen=True)
class Rule:
    """How often one way to pick among the candidates is right, and that against a random pick."""

    name: str
    solved: Range
    difference: Range | None

    @property
    def label(self) -> str:
        return LABELS[self.name]


def rules(results: dict[str, Any], without_pmp: dict[str, Any]) -> list[Rule]:
    """Reward model, random pick, best null rule, majority, oracle, at the largest k.

    Empty for too few problems, and for results of versions before
    0.2.
    """
    differences = results.get("differences") or {}
    if not differences or results["num_problems"] < MIN_HEADLINE_ITEMS:
        return []
    found = []
    for name in ("reward_model", "random", results["null_rule"], "majority", "oracle"):
        series = results["bon"][name]
        solved = _range({key: series[key][-1] for key in ("accuracy", "low", "high")})
        to_random = differences.get(name)
        found.append(Rule(name, solved, _range(to_random) if to_random else None))
    if without_pmp:
        other = Rule("without_pmp", _range(without_pmp), _range(without_pmp["to_random"]))
        found.insert(1, other)
    return found


def sentences(
    results: dict[str, Any], without_pmp: dict[str, Any], pretrained: HeldOut | None
) -> list[str]:
    """The verdict; then what PMP adds, where that was run; `pretrained` is PMP by itself."""
    told = [str(results.get("verdict") or "")]
    if not without_pmp or not rules(results, without_pmp):
        return told
    mean, low, high = (100 * value for value in _range(without_pmp["difference"]))
    word = "better" if low > 0 else "worse" if high < 0 else "too small to tell"
    num = pretrained.num_pairs if pretrained else 0
    if pretrained is None or num < MIN_PMP_PAIRS:
        told.append(f"PMP was tried on {num} held-out pairs, too few to say what it learned.")
        word = "of which nothing is claimed"
    else:
        share = percent(pretrained.accuracy)
        told.append(f"PMP by itself ranks {share} of {num} held-out pairs right.")
    told.append(
        f"With PMP instead of without: {mean:+.1f} points ({100 * results['confidence']:g} % "
        f"interval {low:+.1f} to {high:+.1f}), {word}."
    )
    return told


def print_closing(
    results: dict[str, Any],
    without_pmp: dict[str, Any] | None = None,
    pretrained: HeldOut | None = None,
    console: Console | None = None,
) -> None:
    """Print sentence, table and plot. `console` defaults to standard output."""
    screen = console or Console()
    other = without_pmp or {}
    for sentence in sentences(results, other, pretrained):
        text = filled(visible(sentence), screen.width)
        screen.print(Text(text, style="bold"), soft_wrap=True)
    shown = rules(results, other)
    if not shown:
        return
    confidence = f"{100 * results['confidence']:g} %"
    title = f"Best of {results['bon']['k'][-1]} on {results['num_problems']} {results['title']} "
    title += f"problems, with {confidence} intervals"
    rows = [
        (
            rule.label + (" (best null rule)" if rule.name in NULL_RULES else ""),
            f"{100 * rule.solved[0]:.1f}",
            _points(rule.difference),
        )
        for rule in shown
    ]
    headings = ("pick", "solved, %", "against random, points")
    screen.print(terminal_table(title, headings, rows))
    marks = _ASCII_MARKS if screen.options.ascii_only else _MARKS
    for line in forest(shown, min(screen.width, 80), marks):
        screen.print(Text(line), soft_wrap=True)


def filled(text: str, width: int) -> str:
    """`text` in lines of `width` characters; a number and its percent sign stay on one."""
    return textwrap.fill(text.replace(" %", "\u00a0%"), width).replace("\u00a0", " ")


def forest(shown: list[Rule], width: int, marks: str = _MARKS) -> list[str]:
    """Differences to a random pick with their intervals, one line each; without the oracle, which
    is far off. `marks` are the ends and the middle of an interval, and the line at zero."""
    start, dash, middle, end, zero = marks
    ranges = {rule.label: rule.difference for rule in shown if rule.difference}
    ranges.pop(LABELS["oracle"], None)
    left = min(0.0, *(low for _, low, _ in ranges.values()))
    span = max(0.0, *(high for *_, high in ranges.values())) - left or 1.0
    indent = max(map(len, ranges)) + 2
    num_cells = max(20, width - indent - 6)

    def place(value: float) -> int:
        return round((value - left) / span * (num_cells - 1))

    lines = []
    for label, (mean, low, high) in ranges.items():
        cells = [" "] * num_cells
        cells[place(0.0)] = zero
        cells[place(low) : place(high) + 1] = dash * (place(high) - place(low) + 1)
        cells[place(low)], cells[place(high)], cells[place(mean)] = start, end, middle
        lines.append(f"{label:<{indent}}{''.join(cells)}".rstrip())
    limits = f"{100 * left:+.0f} to {100 * (left + span):+.0f} points, {zero} is a random pick"
    return [*lines, " " * indent + limits]


def _points(difference: Range | None) -> str:
    """`+9.8 (+4.7 to +14.9)`."""
    points = [f"{100 * value:+.1f}" for value in difference or ()]
    return f"{points[0]} ({points[1]} to {points[2]})" if points else ""


def _range(found: dict[str, Any]) -> Range:
    """Of an accuracy or a difference with its interval."""
    mean = found["accuracy"] if "accuracy" in found else found["mean"]
    return float(mean), float(found["low"]), float(found["high"])


def print_summary(recipe: Recipe, console: Console | None = None) -> None:
    """`console` defaults to standard output."""
    run = load_run(recipe)
    screen = console or Console()
    if run.evaluation and run.evaluation.results:
        pretrained = run.pretraining.held_out if run.pretraining else None
        found = run.evaluation
        print_closing(found.results, found.without_pmp, pretrained, screen)
    else:
        screen.print(Text(NOT_EVALUATED, style="bold"))
    if run.total_duration_s is not None:
        screen.print(Text(f"All stages: {duration(run.total_duration_s)}"))
    store = open_store(recipe.run_dir)
    if store.exists("report.html"):
        screen.print(Text(f"Report: {store.locate('report.html')}"), soft_wrap=True)
