"""Running studies one after another, none longer than it may, and none ending the others."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codepmp_ray.analysis.text import duration
from codepmp_ray.cluster.laboratory import Laboratory
from codepmp_ray.json_records import read_record, record_bytes
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue.common import training_stand_ins
from codepmp_ray.studies.cost import Rates, announce, at_hand_cost, training_keys
from codepmp_ray.studies.outcome import Outcome, not_measured, of_error
from codepmp_ray.studies.scores import Trained
from codepmp_ray.studies.study import Context, Models, Study
from codepmp_ray.studies.trainings import Arm, Training

Prepare = Callable[[Bench], None]  # what a study needs beside its arms, made before it is measured
Record = dict[str, Any]
_WORTH_S = 30.0  # less time than that is not begun with again
_FORMAT = 4  # of records; one of another format is measured again


@dataclass(frozen=True)
class Allowance:
    """The time that a study may take, from `start_s` of the monotonic clock; None is all it wants.

    `of_all` says that the time of all studies together is what limits it.
    """

    start_s: float
    budget_s: float | None
    of_all: bool = False

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self.start_s

    def fits(self, needed_s: float) -> bool:
        return self.budget_s is None or self.spent_s + needed_s <= self.budget_s


def run_studies(
    studies: list[Study], bench: Bench, prepare: Mapping[str, Prepare] | None = None
) -> Iterator[Record]:
    """The records of `studies`, each when it is done; together they take no more than `budget_min`.

    A study that fails is recorded as failed, with its reason, and the others go on. Only what ends
    the process, and a run directory that cannot be written, end all. If time is left at the end,
    those that had too little go on with it, first those without any outcome: a study may come
    twice, and its last record holds.
    """
    limit_min = bench.config.budget_min
    end_s = None if limit_min is None else time.monotonic() + 60 * limit_min
    made_by = prepare or {}
    short: dict[str, list[Study]] = {"not measured": [], "partly measured": []}
    for study in studies:
        left_s = None if end_s is None else max(end_s - time.monotonic(), 0.0)
        record = run_study(study, bench, left_s=left_s, prepare=made_by.get(study.name))
        outcome = record["outcome"]
        if outcome["status"] == "partly measured" or outcome["because"] == "time":
            short[outcome["status"]].append(study)
        yield record
    if end_s is None:
        return
    for study in [*short["not measured"], *short["partly measured"]]:
        left_s = end_s - time.monotonic()
        if left_s > _WORTH_S:
            yield run_study(study, bench, left_s, left_s=left_s, prepare=made_by.get(study.name))


def run_study(
    study: Study,
    bench: Bench,
    budget_s: float | None = None,
    *,
    alone: bool = False,
    left_s: float | None = None,
    prepare: Prepare | None = None,
) -> Record:
    """The study's record, from the run directory if it is there; else it is run.

    What is missing makes it "not measured", every other error "failed"; run `alone`, either is
    raised. Time that is up leaves seeds out. The record's `spent_s` is of all tries at what the
    study is now.

    Args:
        budget_s: in place of the recipe's for this study.
        left_s: what is left of the time for all studies.
        prepare: makes what the study needs beside its arms; not called when time is short.
    """
    context = Context(study.name, bench, bench.config.options(study.name))
    allowance = _allowance(context, budget_s, left_s)
    name = f"results/{study.name}.json"
    key, estimated_s = None, None
    try:
        arms = study.trainings(context)
        study.rewards(context)  # what is missing is said before anything is trained
        rewards = context.options.rewards if study.reward_tokens is not None else ()
        key = bench.study_key(study.name, arms, rewards)
        if (known := _measured_before(bench, name, key)) is not None:
            print(f"{study.place}: measured before", file=sys.stderr)
            return known
        estimated_s = announce(study, context, arms, allowance.budget_s)
        if prepare is not None and allowance.fits(estimated_s):
            prepare(bench)
        outcome = _measure(study, context, arms, allowance)
        json.dumps(outcome.to_json(), ensure_ascii=False).encode()  # what cannot be kept failed
    except Exception as error:
        if alone:
            raise
        outcome = of_error(error)
        if outcome.status == "failed":
            bench.store.put(f"results/{study.name}.error.txt", traceback.format_exc().encode())
    spent_s = allowance.spent_s
    record = {
        "format": _FORMAT,
        "name": study.name,
        "key": key,
        "place": study.place,
        "title": study.title,
        "question": study.question,
        "options": context.options.model_dump(mode="json", exclude_none=True),
        "budget_s": allowance.budget_s,
        "estimated_s": estimated_s,
        "spent_s": round(spent_s + _spent_before_s(bench, name, key), 1),
        "outcome": outcome.to_json(),
    }
    bench.store.put(name, record_bytes(record, indent=1, ensure_ascii=False))
    because = f" ({outcome.because}: {outcome.summary})" if outcome.because else ""
    print(f"{study.place}: {outcome.status}{because}, {duration(spent_s)}", file=sys.stderr)
    return record


def _allowance(context: Context, budget_s: float | None, left_s: float | None) -> Allowance:
    if budget_s is None and context.options.budget_min is not None:
        budget_s = 60 * context.options.budget_min
    if left_s is not None and (budget_s is None or left_s <= budget_s):
        return Allowance(time.monotonic(), left_s, of_all=True)
    return Allowance(time.monotonic(), budget_s)


def _spent_before_s(bench: Bench, name: str, key: str | None) -> float:
    """On earlier tries at the same study: trainings and scores of theirs are found again."""
    if key is None or not bench.store.exists(name):
        return 0.0
    known = read_record(bench.store.read_bytes(name))
    return known["spent_s"] if known["key"] == key else 0.0


def _measured_before(bench: Bench, name: str, key: str) -> Record | None:
    if not bench.store.exists(name):
        return None
    known = read_record(bench.store.read_bytes(name))
    is_same = known["key"] == key and known.get("format") == _FORMAT
    return known if is_same and known["outcome"]["status"] == "measured" else None


def _measure(study: Study, context: Context, arms: list[Arm], allowance: Allowance) -> Outcome:
    lab = Laboratory(context.bench)
    models, num_seeds = _train_seeds(study, context, arms, lab, allowance)
    if arms and not num_seeds and study.keep is None:
        return _no_time(study, allowance)
    try:
        outcome = study.measure(context, models, lab.book)
    finally:
        lab.book.close()
    outcome.stand_ins[:0] = training_stand_ins(context, arms)
    if num_seeds < _num_seeds(arms):
        if outcome.status == "measured":
            outcome.status = "partly measured"
        outcome.notes.append(
            f"Time allowed for {num_seeds} of {_num_seeds(arms)} seeds; the same command goes on."
        )
    if arms or study.keep is None:  # kept scores need no sets
        outcome.notes += [f"Left out: {text}" for text in context.missing()]
    outcome.notes += context.pool_notes()
    if lab.book.num_truncated:
        outcome.notes.append(f"{lab.book.num_truncated} answers were cut at max_model_len.")
    return outcome


def _no_time(study: Study, allowance: Allowance) -> Outcome:
    assert allowance.budget_s is not None, "only a budget ends training early"
    whose = "What was left of the time for all studies" if allowance.of_all else "Its budget"
    key = "budget_min" if allowance.of_all else f"studies.{study.name}.budget_min"
    return not_measured(
        "time",
        f"{whose}, {duration(allowance.budget_s)}, did not suffice for one training of every arm.",
        f"Raise {key}, or repeat the command: what was trained is kept.",
    )


def _train_seeds(
    study: Study, context: Context, arms: list[Arm], lab: Laboratory, allowance: Allowance
) -> tuple[Models, int]:
    """(models of all arms, seeds): one seed's arms, then the next one's, while time allows it."""
    models: Models = {arm.label: [] for arm in arms}
    num_seeds = _num_seeds(arms)
    for number in range(num_seeds):
        row: dict[str, Trained] = {}
        for arm in (arm for arm in arms if number < len(arm.by_seed)):
            training = arm.by_seed[number]
            num_scored = number + 1 if study.keep is None else 1
            if not _fits(study, context, training, num_scored, allowance):
                return models, number
            row[arm.label] = lab.train(training)
            if study.keep is not None:
                study.keep(context, training.config.seed, row, lab.book)
        for label, trained in row.items():
            models[label].append(trained)
    return models, num_seeds


def _num_seeds(arms: list[Arm]) -> int:
    """Of the arm that has most: some have their first alone."""
    return max((len(arm.by_seed) for arm in arms), default=0)


def _fits(
    study: Study, context: Context, training: Training, num_scored: int, allowance: Allowance
) -> bool:
    """Whether there is time for this training, and for scoring with `num_scored` of each arm."""
    bench = context.bench
    done = training_keys(bench)
    left = [t for t in training.chain() if bench.key(t) not in done]
    if not left:
        return True
    rates = Rates(bench)
    needed_s = sum(rates.training_s(t)[0] for t in left)
    needed_s += rates.scoring_s(study.num_tokens(context) * num_scored, context.model)[0]
    needed_s += at_hand_cost(study, context, rates)[0]
    return allowance.fits(needed_s)
