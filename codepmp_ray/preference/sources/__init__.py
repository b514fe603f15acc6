"""Preference sets of others as pairs: a file of pure functions for each kind of set."""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.config.data import Kind
from codepmp_ray.preference.sources import (
    code_ultrafeedback,
    hh_rlhf,
    math_shepherd,
    multiple_choice,
    solutions,
    trl,
)
from codepmp_ray.preference.sources.rows import Builder


@dataclass(frozen=True)
class Source:
    """How rows of one kind become pairs. A set needs the columns of one of `columns`."""

    build: Builder
    columns: tuple[set[str], ...]


SOURCES: dict[Kind, Source] = {
    "preference": Source(trl.build, trl.COLUMNS),
    "math_shepherd": Source(math_shepherd.build, math_shepherd.COLUMNS),
    "reclor": Source(
        multiple_choice.builder(multiple_choice.RECLOR), (multiple_choice.RECLOR.required,)
    ),
    "logiqa2": Source(
        multiple_choice.builder(multiple_choice.LOGIQA2), (multiple_choice.LOGIQA2.required,)
    ),
    "code_ultrafeedback": Source(code_ultrafeedback.build, code_ultrafeedback.COLUMNS),
    "hh_rlhf": Source(hh_rlhf.build, hh_rlhf.COLUMNS),
    "gsm8k_solutions": Source(solutions.build, solutions.COLUMNS),
}
