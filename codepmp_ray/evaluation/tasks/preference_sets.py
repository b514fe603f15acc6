"""Sets of pairs, one description each: which column holds what, and which part a row belongs to.

How their figures are put together is `pairwise.official`'s. Sets whose rows training reads, too,
are read by the training source's own builder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from codepmp_ray.config.data import HUB_IDS, HUB_PLACES, DataSourceConfig, Kind
from codepmp_ray.evaluation.tasks.base import HubSet, PreferencePair, PreferenceTask
from codepmp_ray.evaluation.tasks.reward_bench import canonical
from codepmp_ray.preference.sources import SOURCES
from codepmp_ray.preference.sources.rows import (
    Numbered,
    Reject,
    Row,
    Unusable,
    checked_conversation,
    checked_text,
    of_one_answer,
    text_cell,
)
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

STYLES = ("concise", "detailed", "markdown")
DOMAINS = ("chat", "math", "code", "safety")
REWARD_BENCH_2 = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
TIES = REWARD_BENCH_2[-1]
_CODE: Kind = "code_ultrafeedback"
_WINNERS = {"model_a": True, "model_b": False}
_JUDGED = {
    "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math",
    "livecodebench": "coding",
}  # fmt: skip


class Sides(NamedTuple):
    """One pair of a row; `variant` tells it from the row's others."""

    chosen: str
    rejected: str
    variant: str | None = None


@dataclass(frozen=True)
class Description:
    """Where a set's row has what. Functions raise Unusable.

    Attributes:
        part: the part of the set that a row belongs to.
        sides: the row's pairs.
        prompt: column of the prompt, a text or messages.
        columns: that every row has.
        row_id: column of an id that is unique in its part; rows are numbered without.
    """

    part: Callable[[Row], str]
    sides: Callable[[Row], Iterable[Sides]]
    columns: set[str]
    prompt: str = "prompt"
    row_id: str = "id"

    def pairs(self, rows: Iterable[Numbered]) -> Iterator[PreferencePair | Reject]:
        seen: set[tuple[str, str]] = set()
        for item in rows:
            if isinstance(item, Reject):
                yield item
                continue
            index, row = item
            try:
                key = (self.part(row), str(row.get(self.row_id, f"row {index}")))
                found = self._pairs(row, key)
                if key in seen:
                    raise Unusable(
                        RejectReason.EXACT_DUPLICATE, f"a second row {key[1]!r} of {key[0]}"
                    )
            except Unusable as error:
                yield Reject(index, error.reason, error.detail)
                continue
            seen.add(key)
            yield from found

    def _pairs(self, row: Row, key: tuple[str, str]) -> list[PreferencePair]:
        value = row.get(self.prompt)
        prompt: Any = (
            checked_conversation(value, self.prompt)
            if isinstance(value, list)
            else text_cell(row, self.prompt)
        )
        if not str(prompt).strip() or not prompt:
            raise Unusable(RejectReason.PROMPT_EMPTY, f"{self.prompt} is missing or blank")
        found = []
        for sides in self.sides(row):
            for name, text in (("chosen", sides.chosen), ("rejected", sides.rejected)):
                if not text.strip():
                    raise Unusable(RejectReason.EMPTY, f"{name} is missing or blank")
            # Pairs of one row are of one question; rows by themselves are alike by their prompts.
            problem_id = stable_id(str(prompt)) if sides.variant is None else stable_id(*key)
            pair_id = stable_id(*key) if sides.variant is None else stable_id(
                problem_id, sides.variant
            )  # fmt: skip
            found.append(PreferencePair(pair_id, problem_id, prompt, sides.chosen, sides.rejected,
                                        key[0], sides.variant, _models(row)))  # fmt: skip
        if not found:
            raise Unusable(RejectReason.NO_CONTRAST, "no two answers of which one is better")
        return found


def _models(row: Row) -> tuple[str, str] | None:
    chosen, rejected = row.get("chosen_model"), row.get("rejected_model")
    if isinstance(chosen, str) and isinstance(rejected, str) and chosen and rejected:
        return chosen, rejected
    return None


def _of_sources(
    name: str, title: str, license: str, kind: Kind, split: str, folder: str | None = None
) -> PreferenceTask:
    """Pairs as finetuning makes them of the same rows, with the defaults of `DataSourceConfig`."""
    place = {"subset": folder, "revision": None} | HUB_PLACES.get(kind, {})
    hub = HubSet(HUB_IDS[kind], split, place["subset"], place["revision"], folder is not None)
    # The builder looks at settings of pairing only, never at where the rows are.
    settings = DataSourceConfig(kind=kind, path=name)
    source = SOURCES[kind]

    def pairs(rows: Iterable[Numbered]) -> Iterator[PreferencePair | Reject]:
        for item in map(of_one_answer, source.build(rows, settings)):
            if isinstance(item, Reject):
                yield item
                continue
            prompt = item["prompt"] if item["messages"] is None else item["messages"]
            problem_id = item["problem_id"] or item["source_id"]
            yield PreferencePair(
                item["pair_id"], problem_id, prompt, item["chosen"], item["rejected"]
            )

    return PreferenceTask(name, title, license, hub, source.columns, pairs)


def _named(row: Row, column: str, known: Callable[[str], str | None], title: str) -> str:
    given = text_cell(row, column)
    if (found := known(given)) is None:
        raise Unusable(RejectReason.BAD_LABEL, f"{title} has no {column} {given!r}")
    return found


def _texts(row: Row, name: str, num: int | None = None) -> list[str]:
    """The texts of a list, `num` of them where that is said."""
    value = row.get(name)
    if not isinstance(value, list) or not value or num not in (None, len(value)):
        raise Unusable(RejectReason.NOT_TEXT, f"{name} is not a list of {num or 'some'} answers")
    return [checked_text(text, name) for text in value]


def _one(row: Row) -> list[Sides]:
    return [Sides(text_cell(row, "chosen"), text_cell(row, "rejected"))]


def _by_style(row: Row) -> list[Sides]:
    right, wrong = (zip(STYLES, _texts(row, n, 3), strict=True) for n in ("chosen", "rejected"))
    return [Sides(a, b, f"{one}/{two}") for (one, a), (two, b) in product(right, wrong)]


def _each_against_each(row: Row) -> list[Sides]:
    """Every right answer against every wrong one; the row's id is kept, for ties are told by it."""
    right, wrong = (enumerate(_texts(row, name)) for name in ("chosen", "rejected"))
    name = row.get("id")
    return [Sides(a, b, f"{name}|{i}/{j}") for (i, a), (j, b) in product(right, wrong)]


def _labelled(first: str, second: str, column: str, labels: dict[str, bool]) -> Any:
    """Two answers and a label that says whether the first is better; no other label is a pair."""

    def sides(row: Row) -> list[Sides]:
        label = row.get(column)
        if label not in labels:
            raise Unusable(RejectReason.BAD_LABEL, f"{column} is {label!r}, not one of {[*labels]}")
        one, two = (text_cell(row, name) for name in (first, second))
        return [Sides(one, two) if labels[label] else Sides(two, one)]

    return sides


def _conflicts(row: Row) -> list[Sides]:
    """PPE's correctness sets: sampled pairs of a right and a wrong answer, by their numbers."""
    scores, pairs = row.get("scores"), row.get("sampled_conflict_pairs")
    if not isinstance(scores, list) or not isinstance(pairs, list):
        raise Unusable(RejectReason.BAD_LABEL, "scores or sampled_conflict_pairs is no list")
    found = []
    for pair in pairs:
        try:
            one, two = sorted((int(i) for i in pair), key=lambda i: -float(scores[i]))
            if scores[one] == scores[two]:
                raise ValueError(f"answers {one} and {two} are equally right")
        except (TypeError, ValueError, IndexError) as error:
            raise Unusable(RejectReason.BAD_LABEL, f"sampled_conflict_pairs: {error}") from error
        right, wrong = (text_cell(row, f"response_{i + 1}") for i in (one, two))
        found.append(Sides(right, wrong, f"{one}/{two}"))
    return found


def _of_reward_bench_2(name: str) -> str | None:
    return next((known for known in REWARD_BENCH_2 if known.lower() == name.lower()), None)


def _judged(source: str) -> str | None:
    return next((part for head, part in _JUDGED.items() if source.startswith(head)), None)


def _domain(name: str) -> str | None:
    part = name.partition("-")[0]
    return part if part in DOMAINS else None


def _task(
    name: str,
    title: str,
    license: str,
    hub: HubSet,
    described: Description,
    file: str | None = None,
) -> PreferenceTask:
    return PreferenceTask(name, title, license, hub, (described.columns,), described.pairs, file)


PREFERENCE_TASKS: dict[str, PreferenceTask] = {
    task.name: task
    for task in (
        # Paper, Table 1. MathShepherd has one part, which finetuning reads too, and the paper does
        # not say what it held out: name a file of held-out rows, or hold questions out there.
        _of_sources("math_shepherd", "MathShepherd-pair", "MIT", "math_shepherd", "train"),
        # Its test part has no labels.
        _of_sources(
            "reclor_pairs", "ReClor-pair", "non-commercial research", "reclor", "validation"
        ),
        _of_sources("logiqa2_pairs", "LogiQA2.0-pair", "CC BY-NC-SA 4.0", "logiqa2", "test"),
        _of_sources(_CODE, "CodeUltraFeedback", "MIT", _CODE, "train"),
        _of_sources("hh_helpful", "HH-RLHF helpful", "MIT", "hh_rlhf", "test", "helpful-base"),
        _of_sources("hh_harmless", "HH-RLHF harmless", "MIT", "hh_rlhf", "test", "harmless-base"),
        _task(
            "reward_bench", "RewardBench", "ODC-BY, parts CC BY-NC 4.0",
            HubSet("allenai/reward-bench", "filtered"),
            Description(lambda row: _named(row, "subset", canonical, "RewardBench"), _one,
                        {"prompt", "chosen", "rejected", "subset"}),
        ),
        _task(
            "reward_bench_2", "RewardBench 2", "ODC-BY", HubSet("allenai/reward-bench-2", "test"),
            Description(
                lambda row: _named(row, "subset", _of_reward_bench_2, "RewardBench 2"),
                _each_against_each, {"prompt", "chosen", "rejected", "subset", "id"},
            ),
        ),
        # Liu et al. 2024: three styles of each answer; files of its repository are domains.
        _task(
            "rm_bench", "RM-Bench", "ODC-BY", HubSet("THU-KEG/RM-Bench", "train"),
            Description(lambda row: _named(row, "domain", _domain, "RM-Bench"), _by_style,
                        {"prompt", "chosen", "rejected", "domain"}),
            "domain",
        ),
        _task(
            "judge_bench", "JudgeBench", "MIT", HubSet("ScalerLab/JudgeBench", "gpt"),
            Description(
                lambda row: _named(row, "source", _judged, "JudgeBench"),
                _labelled("response_A", "response_B", "label", {"A>B": True, "B>A": False}),
                {"question", "response_A", "response_B", "label", "source"}, "question", "pair_id",
            ),
        ),
        _task(
            "ppe_human", "PPE, human preference", "as the answers' models",
            HubSet("lmarena-ai/PPE-Human-Preference-V1", "test"),
            Description(
                lambda row: "human",
                _labelled("response_1", "response_2", "winner", _WINNERS),
                {"prompt", "response_1", "response_2", "winner"}, row_id="question_id",
            ),
        ),
        # A file for each of its benchmarks (MMLU-Pro, MATH, GPQA, IFEval, MBPP-Plus), by its name.
        _task(
            "ppe_correctness", "PPE, correctness", "as the benchmarks",
            HubSet("lmarena-ai/PPE-MATH-Best-of-K", "train"),
            Description(
                lambda row: str(row.get("benchmark", "MATH")), _conflicts,
                # Several models answer a question: rows are known by their number.
                {"prompt", "response_1", "scores", "sampled_conflict_pairs"}, row_id="",
            ),
            "benchmark",
        ),
        _task(
            "code_reward_bench", "CodeRewardBench", "Apache-2.0",
            HubSet("project-themis/Themis-CodeRewardBench", "Full", "Full"),
            Description(
                lambda row: f"{text_cell(row, 'aspect')}/{text_cell(row, 'language')}", _one,
                {"prompt", "chosen", "rejected", "aspect", "language"},
            ),
        ),
    )
}  # fmt: skip
