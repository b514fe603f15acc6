"""What a recipe of studies would train and what for it is missing; nothing is started."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codepmp_ray.analysis.text import duration
from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.errors import CodePMPError, ModelError
from codepmp_ray.hub_models import is_hub_id
from codepmp_ray.modeling.sources import require_builtin, require_weights
from codepmp_ray.studies.assumed import AssumedBench, AssumedContext
from codepmp_ray.studies.cost import Rates, own_pairs
from codepmp_ray.studies.pools import pool_file
from codepmp_ray.studies.sets import MissingSet, is_hub_reachable, require_set
from codepmp_ray.studies.study import Study
from codepmp_ray.studies.trainings import Training


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
    wanted = {bench.key(t): t for arm in arms for last in arm.by_seed for t in last.chain()}
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
    table = Table(title=f"Plan of {config.name}: nothing is started", title_justify="left")
    table.add_column("study")
    headings = ("trainings", "of them new", "tokens to train", "training", "scoring", "missing")
    for heading in headings:
        table.add_column(heading, justify="right")
    for plan in plans:
        cells = (
            plan.place,
            str(plan.num_trainings),
            str(plan.num_new),
            f"{plan.num_tokens:,.0f}",
            duration(plan.training_s),
            duration(plan.scoring_s),
            "cannot be planned" if plan.error else str(len(plan.missing)),
        )
        table.add_row(*(Text(cell) for cell in cells))
    screen.print(table)
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
