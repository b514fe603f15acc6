"""RM-Bench (Liu et al. 2024): each prompt has three right and three wrong answers by style.

The styles are concise, detailed in plain text, and detailed in Markdown. All nine pairs of a row
count; `pairwise.rm_bench` makes the figures. safety-refuse and safety-response are one domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from codepmp_ray.evaluation.tasks.base import HubSet, PreferencePair, PreferenceTask
from codepmp_ray.preference.sources.rows import (
    Numbered,
    Reject,
    Row,
    Unusable,
    checked_text,
    text_cell,
)
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason

STYLES = ("concise", "detailed", "markdown")
DOMAINS = ("chat", "math", "code", "safety")


def pairs(rows: Iterable[Numbered]) -> Iterator[PreferencePair | Reject]:
    """Nine pairs of each row; `subset` is its domain, `variant` "concise/markdown" and so on."""
    seen: set[tuple[str, str]] = set()
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        index, row = item
        try:
            prompt, domain = text_cell(row, "prompt"), text_cell(row, "domain")
            key = (domain, str(row.get("id", f"row {index}")))  # domains number their own rows
            chosen, rejected = (_answers(row, key) for key in ("chosen", "rejected"))
            subset = domain.partition("-")[0]
            if subset not in DOMAINS:
                raise Unusable(RejectReason.BAD_LABEL, f"RM-Bench has no domain {domain!r}")
            if not prompt.strip():
                raise Unusable(RejectReason.PROMPT_EMPTY, "prompt is missing or blank")
            if key in seen:
                raise Unusable(RejectReason.EXACT_DUPLICATE, f"a second row {key[1]!r} of {domain}")
        except Unusable as error:
            yield Reject(index, error.reason, error.detail)
            continue
        seen.add(key)
        problem_id = stable_id(*key)
        for style, right in zip(STYLES, chosen, strict=True):
            for other, wrong in zip(STYLES, rejected, strict=True):
                variant = f"{style}/{other}"
                pair_id = stable_id(problem_id, variant)
                yield PreferencePair(pair_id, problem_id, prompt, right, wrong, subset, variant)


def _answers(row: Row, name: str) -> list[str]:
    value = row.get(name)
    if not isinstance(value, list) or len(value) != len(STYLES):
        raise Unusable(RejectReason.NOT_TEXT, f"{name} is not a list of {len(STYLES)} answers")
    answers = [checked_text(text, name) for text in value]
    if not all(text.strip() for text in answers):
        raise Unusable(RejectReason.EMPTY, f"an answer of {name} is blank")
    return answers


TASK = PreferenceTask(
    name="rm_bench",
    title="RM-Bench",
    license="ODC-BY",
    hub=HubSet("THU-KEG/RM-Bench", "train"),
    columns=({"prompt", "chosen", "rejected", "domain"},),
    pairs=pairs,
)
