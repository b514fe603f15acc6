"""What a command says before it makes stages: what is reused, why again, what would happen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe

    Arms = list[tuple[Recipe, tuple[str, ...]]]  # recipes, each with the stages to make of it


def with_reused(recipe: Recipe, names: list[str]) -> Recipe:
    """The recipe with the stages of `--reuse` and of its key `reuse`; says which they are."""
    if not names and not recipe.reuse:
        return recipe
    from codepmp_ray.other_settings import reusing

    recipe, taken = reusing(recipe, names)
    for other in taken:
        print(f"Reusing {other.folder}: {other.why}.", file=sys.stderr)
    return recipe


def arms_of(recipe: Recipe, stages: tuple[str, ...], compare: bool) -> Arms:
    """What is made of which recipe: `stages`, and with `compare` those of the arm without PMP."""
    if not compare:
        return [(recipe, stages)]
    from codepmp_ray.evaluation.scoring_run import OWN_STAGES, recipe_without_pmp

    return [(recipe, stages), (recipe_without_pmp(recipe), OWN_STAGES)]


def before_making(arms: Arms) -> None:
    """Refuse what cannot be made with this installation, and say what is made again."""
    from codepmp_ray.command.extras import require_extras
    from codepmp_ray.runs import open_stage

    for number, (recipe, stages) in enumerate(arms):
        waiting = [name for name in stages if not open_stage(recipe, name).is_complete]
        require_extras(recipe, waiting)
        if number == 0:  # the other arm differs from it on purpose
            explain(recipe, tuple(waiting))


def explain(recipe: Recipe, stages: tuple[str, ...]) -> None:
    """Say of each stage that is going to be made, while it is there with other settings, which
    keys are why."""
    from codepmp_ray.config.keys import shown_differences
    from codepmp_ray.other_settings import nearest, other_stages
    from codepmp_ray.runs import open_stage

    waiting = [name for name in stages if not open_stage(recipe, name).has_begun]
    others = other_stages(recipe) if waiting else []
    told: set[str] = set()
    following = []
    for name in waiting:
        other = nearest(name, others)
        if other is None:
            continue
        fresh = {key: values for key, values in other.differs.items() if key not in told}
        if not fresh and other.differs:
            following.append(name)
            continue
        told |= fresh.keys()
        why = shown_differences(fresh) if fresh else other.why
        print(
            f"{name} is made again, though {other.folder} is complete: {why}. "
            f"--reuse {name}={other.fingerprint} takes that.",
            file=sys.stderr,
        )
    if following:
        print(f"So are {', '.join(following)}, which follow from it.", file=sys.stderr)


def print_plan(arms: Arms) -> None:
    """What a command that makes them would do; nothing is started."""
    from codepmp_ray.config.synthesis import WITHOUT_CORPUS
    from codepmp_ray.runs import open_stage, stages_read

    made: set[str] = set()  # before the stage that is looked at
    for number, (recipe, stages) in enumerate(arms):
        reads = stages_read(recipe)
        if recipe.synthesis.construction in WITHOUT_CORPUS:
            reads["synthesis"] = ()  # of the corpus its fingerprint has the settings only
        arm = " without PMP" if number else ""
        for name in stages:
            stage = open_stage(recipe, name)
            state = "resume" if stage.has_begun else "make"
            if stage.is_complete:
                state = "reuse" if name in recipe.reuse else "complete"
            others = [(other, open_stage(recipe, other)) for other in reads[name]]
            missing = [n for n, read in others if read.uri not in made and not read.is_complete]
            needs = f"; needs {', '.join(missing)} first" if missing and state != "complete" else ""
            print(f"{name:<12} {state:<9} {stage.uri}{arm}{needs}")
            made.add(stage.uri)
    explain(*arms[0])
