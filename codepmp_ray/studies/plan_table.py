"""What a recipe of studies would train and what for it is missing; nothing is started.

The bench has no data: every set, pool and tokenizer is taken to be there, as large as asked for. No
pairs are read, no model is loaded, and numbers of pairs are the recipe's own, which a set that
turns out smaller does not reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.text import Text

from codepmp_ray.analysis.text import duration, terminal_table
from codepmp_ray.config.base import fingerprint
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.studies import StudiesConfig, StudyOptions
from codepmp_ray.errors import CodePMPError, ModelError
from codepmp_ray.evaluation.pool_rows import Answer
from codepmp_ray.evaluation.pools import Pool, Question
from codepmp_ray.hub_models import is_hub_id
from codepmp_ray.modeling.sources import require_builtin, require_weights
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.cost import Rates, own_pairs
from codepmp_ray.studies.pair_rows import PairRows, TestPairs
from codepmp_ray.studies.pools import Generators, pool_file
from codepmp_ray.studies.sets import MissingSet, PairSet, is_hub_reachable, require_set
from codepmp_ray.studies.study import Context, Study
from codepmp_ray.studies.trainings import Pairs, Training

_HEADINGS = (
    "study", "trainings", "of them new", "tokens to train", "training", "scoring", "missing",
)  # fmt: skip
_MOST = 100_000  # rows of a set, where a study asks for all; more of them change no plan
_CHARACTERS = 4  # a token, as scoring of pools assumes


class AssumedContext(Context):
    """A study's view of an AssumedBench: no pool is missing."""

    def _missing_pools(self) -> dict[str, MissingSet]:
        return {}


class AssumedBench(Bench):
    """A Bench for plans: `arms` and `num_tokens` of studies work, nothing can be trained."""

    def set(self, name: str) -> PairSet:
        config = self.config.sets[name]
        num = min(_MOST, config.max_rows or _MOST)
        rows = [_row(0)] * num
        return PairSet(name, config.title or name, rows, rows, "assumed", {}, True)

    def pool(self, name: str, options: StudyOptions, generators: Generators) -> Pool:
        num, size = options.num_problems or 100, options.num_candidates or 16
        size = min(size, self.config.pools[name].num_candidates or size)
        half = " " * int(_CHARACTERS * self.config.tokens_per_pair / 3)
        answers = [Answer(half)] * size
        questions = {str(i): Question(str(i), half, answers=answers) for i in range(num)}
        return Pool(questions, name=name, origin="assumed", setting=name)

    def require_scorer(self, name: str) -> None:
        """It is named among what is missing instead."""

    @cached_property
    def pairs(self) -> PairRows:
        return AssumedRows(self.config, self.set)

    @property
    def code_sets(self) -> tuple[str, ...]:
        return self.config.code_pairs[:1]

    def data(self, training: Training) -> tuple[DataSourceConfig, int, str]:
        rows = self.pairs.rows(training.pairs, training.base)
        described = training.pairs, self.pairs.tokenizer_of(training.base)
        return DataSourceConfig(path="assumed"), len(rows), fingerprint(str(described))


@dataclass
class AssumedRows(PairRows):
    """Pairs that are all alike, of a third of a pair's tokens in each of their three parts."""

    def _find_rows(self, pairs: Pairs, model: str) -> list[Row]:
        most = [self.config.sets[name].max_rows for name in pairs.sets]
        known = sum(num for num in most if num) if all(most) else pairs.num_pairs
        return [_row(0)] * min(pairs.num_pairs, known)

    def _find_test_pairs(self, name: str, num: int, model: str) -> TestPairs:
        rows = [_row(i) for i in range(min(num, _MOST))]
        return TestPairs(rows, [row["prompt"] for row in rows], 0, "")

    def num_tokens(self, row: Row, model: str) -> int:
        return round(2 * self.config.tokens_per_pair / 3)

    def encoder(self, model: str) -> Any:
        return _AssumedEncoder(self.config)


class _AssumedEncoder:
    def __init__(self, config: StudiesConfig) -> None:
        self._num = round(config.tokens_per_pair / 3)

    def prompt_ids(self, prompt: Any) -> list[int]:
        return [0] * self._num


def _row(number: int) -> Row:
    return {
        "pair_id": str(number), "problem_id": None, "source_id": None, "prompt": f"prompt {number}",
        "messages": None, "chosen": "chosen", "rejected": "rejected", "margin": None,
        "source_code": "code",
    }  # fmt: skip


@dataclass(frozen=True)
class StudyPlan:
    """Attributes:
    num_trainings: different ones of the study; `num_new` of them are in no study before it.
    num_tokens: packed tokens of the new ones, by the recipe's `tokens_per_pair`.
    training_s / scoring_s: of the new ones, and of scoring what the study measures.
    missing: names of sets, pools and models that are not here, each with what is said of it.
    """

    place: str
    title: str
    num_trainings: int
    num_new: int
    num_tokens: float
    training_s: float
    scoring_s: float
    missing: dict[str, str]
    error: str = ""


def plan_studies(studies: list[Study], config: StudiesConfig) -> list[StudyPlan]:
    """The plans, in order; a training that several studies share counts in the first one.

    Sets, pools and models that are missing are taken to be there and named. Nothing is read but
    what was timed in the same run directory before.
    """
    bench = AssumedBench(config)
    rates = Rates(bench)
    seen: set[str] = set()
    return [_plan(study, bench, rates, seen) for study in studies]


def _plan(study: Study, bench: AssumedBench, rates: Rates, seen: set[str]) -> StudyPlan:
    config = bench.config
    context = AssumedContext(study.name, bench, config.options(study.name))
    try:
        arms = study.trainings(context)
        seeds = len(context.seeds) if context.options.train_arms else 0
        num_tokens = study.num_tokens(context) * seeds
        given = study.reward_tokens
        given_tokens = given(context) if given and context.options.rewards else 0
    except MissingSet:  # what only reads a pool looks into it; it is named below
        arms, num_tokens, given_tokens = [], 0, 0
    except CodePMPError as error:
        return StudyPlan(study.place, study.title, 0, 0, 0.0, 0.0, 0.0, {}, str(error))
    wanted = bench.steps(arms)
    new = [training for key, training in wanted.items() if key not in seen]
    seen.update(wanted)
    pairs = sum(own_pairs(bench, t) * t.config.num_train_epochs for t in new)
    return StudyPlan(
        study.place,
        study.title,
        len(wanted),
        len(new),
        pairs * config.tokens_per_pair,
        sum(rates.training_s(t)[0] for t in new),
        rates.scoring_s(num_tokens, context.model)[0]
        + sum(rates.scoring_s(given_tokens, f"reward:{n}")[0] for n in context.options.rewards),
        _missing(context, list(wanted.values())),
    )


def _missing(context: AssumedContext, trainings: list[Training]) -> dict[str, str]:
    """What is said of each set, pool and model of the study that is not here, by its name.

    The services of reward models at hand are asked whether they are there.
    """
    config, options = context.bench.config, context.options
    sets = {name for t in trainings for name in t.pairs.sets}
    sets |= {*(options.sets or ()), *options.constructions.values()}
    shapes = [config.models[name] for name in {t.base for t in trainings} or {context.model}]
    models = {shape.weights or shape.tokenizer for shape in shapes}
    models |= {options.scorer} if options.scorer else set()

    def look_for_set(name: str) -> None:
        require_set(name, config.sets[name], config.data_dir)

    def look_for_pool(name: str) -> None:
        pool_file(name, config.pools[name], config.data_dir)

    found = {}
    for names, look in (
        (sorted(sets), look_for_set),
        (options.pools or (), look_for_pool),
        (sorted(models), _look_for_model),
        (options.rewards, context.bench.reward_model),
    ):
        for name in names:
            try:
                look(name)
            except CodePMPError as error:
                found[name] = str(error)
    return found


def _look_for_model(name: str) -> None:
    if name.startswith("builtin:"):
        require_builtin(name)
    elif not is_hub_id(name):
        require_weights(name)
    elif not is_hub_reachable():
        raise ModelError(f"{name} is a model of the hub, which does not answer.")


def print_plans(
    plans: list[StudyPlan], config: StudiesConfig, console: Console | None = None
) -> None:
    """A line for each study, the sums, and once each what is missing."""
    screen = console or Console()
    rows = [
        (
            plan.place,
            str(plan.num_trainings),
            str(plan.num_new),
            f"{plan.num_tokens:,.0f}",
            duration(plan.training_s),
            duration(plan.scoring_s),
            "cannot be planned" if plan.error else str(len(plan.missing)),
        )
        for plan in plans
    ]
    screen.print(terminal_table(f"Plan of {config.name}: nothing is started", _HEADINGS, rows))
    for plan in plans:
        if plan.error:
            screen.print(Text(f"{plan.place} cannot be planned: {plan.error}"))
    missing = {name: said for plan in plans for name, said in plan.missing.items()}
    for said in missing.values():
        screen.print(Text(f"Missing: {said}"))
    total_s = sum(plan.training_s + plan.scoring_s for plan in plans)
    screen.print(
        Text(
            f"{len(plans)} studies: {sum(p.num_new for p in plans)} different trainings, "
            f"{sum(p.num_tokens for p in plans):,.0f} tokens, about {duration(total_s)}. Assumed: "
            "all sets are here and as large as the recipe asks, scores that studies share count in "
            "each, "
            f"{config.tokens_per_pair:g} tokens a pair, {config.pairs_per_s:g} pairs/s in training "
            f"and {config.scoring.tokens_per_s:,.0f} tokens/s in scoring (times a model's speed), "
            "unless trainings were timed in run_dir."
        )
    )
