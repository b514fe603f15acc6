"""An override changes the key that it names, and no other: every key of every recipe."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml

from codepmp_ray.config.base import Section
from codepmp_ray.config.overrides import with_override
from codepmp_ray.config.recipe import Recipe, load_recipe, parse_sections
from codepmp_ray.config.studies import StudiesConfig, load_studies
from codepmp_ray.errors import ConfigError

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
Keys = tuple[str, ...]

# Recipes that say next to nothing, and what no shipped recipe has: maps and sections by default
# empty or null.
BARE: dict[str, tuple[type[Section], dict[str, Any]]] = {
    "bare recipe": (Recipe, {"name": "x"}),
    "bare studies": (StudiesConfig, {"sets": {"stdlib": {"kind": "stdlib_functions"}}}),
    "rare sections": (Recipe, {"candidates": {"engine": {"model_name_or_path": "x"}}}),
    "rare studies": (
        StudiesConfig,
        {
            "sets": {"stdlib": {"kind": "stdlib_functions"}},
            "rewards": {"mine": {"model_name_or_path": "x"}},
            "studies": {"seed004": {"prompt_filter": {"stdlib": {"max_turns": 1}}}},
        },
    ),
}
_EVALUATED = (".eval_steps=1", ".eval_fraction=0.1", ".best_metric=eval_loss")
# What a key cannot be changed without, by patterns of keys; it is given to both sides. Those with
# a dot in front are in the same section.
NEEDS: dict[str, tuple[str, ...]] = {
    "*.best_metric": (".eval_steps=1", ".eval_fraction=0.1"),
    "*.early_stopping_patience": _EVALUATED,
    "*.early_stopping_min_delta": (*_EVALUATED, ".early_stopping_patience=1"),
    "*.lora": (".objective=rm",),
    "*.max_tokens_per_item": (".max_length=8",),
    "*.ranking_loss": (".objective=rm",),
    "*.trunk_steps": (".schedule=wsd", ".max_steps=1"),
    "planning.max_price": (".price_per_gpu_hour=1",),
    "*.min_workers": (".num_workers=16",),
    "*.data_parallel_replicate_degree": (".num_workers=16", ".min_workers=null"),
    "*.min_actors": (".max_actors=16",),
    "corpus.source.kind": (".path=x", "synthesis.construction=source_model"),
    "synthesis.*.seed": ("synthesis.construction=source_model",),
    "serving.revision": (".model_path=x",),
    "pool_statistics.stop": (".rewards=[{name: mine, column: x}]",),
    **dict.fromkeys(
        [f"{name}.revision" for name in ("pretraining", "finetuning", "models.*")]
        + [f"{name}.revision" for name in ("warmup", "pmp", "rm", "dpo")],
        (".model_name_or_path=x",),
    ),
    "candidates.kinds": ("candidates.task=reasoning_gym", "candidates.kinds={gcd: {}}"),
    **dict.fromkeys(
        ["candidates.task", "candidates.task_path", "candidates.pool_path"],
        ("candidates.task=gsm8k", "candidates.kinds={}"),
    ),
    "sets.*.stands_for": (".paper_set=null",),
    "sets.*.paper_set": (".stands_for=null",),
    "defaults.rewards": ("rewards.mine.model_name_or_path=x",),
    "studies.*.rewards": ("rewards.mine.model_name_or_path=x",),
}
# Keys that cannot be changed alone.
EXCEPTED = {
    "corpus.source.columns": "stands for the names of a data set's columns, which follow it",
    "serving.sandbox.shared_process": "names problems, and requests have none",
    "rewards.*.endpoint": "is given in place of model_name_or_path, which has to be null then",
}
# One of them is valid wherever a section is asked for.
SECTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"path": "x"},
    {"model_name_or_path": "x"},
    {"model_path": "x"},
    {"name": "rm_bench"},
    {"name": "x", "column": "x"},
)


def _sources() -> dict[str, tuple[type[Section], dict[str, Any]]]:
    files = {str(path.relative_to(RECIPES)): path for path in sorted(RECIPES.rglob("*.yaml"))}
    return BARE | {
        name: (
            StudiesConfig if name.startswith("studies") else Recipe,
            yaml.safe_load(path.read_text(encoding="utf-8")),
        )
        for name, path in files.items()
    }


def _leaves(value: Any, annotation: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any, Any]]:
    """(path, type, value) of every key that is no section; of maps also that of every entry."""
    if isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            yield from _leaves(getattr(value, name), field.annotation, (*path, name))
        return
    entries = value if isinstance(value, dict) else {}
    for name, entry in entries.items():
        yield from _leaves(entry, (*get_args(annotation), Any)[1], (*path, name))
    if not any(isinstance(entry, Section) for entry in entries.values()):
        yield path, annotation, value


def _candidates(annotation: Any, value: Any, names: list[str]) -> Iterator[Any]:
    """Values of that type, as YAML has them; `names` are what a string may have to refer to."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from args
    elif origin in (Union, types.UnionType):
        for inner in args:
            yield from _candidates(inner, value, names)
    elif origin is Annotated:
        yield from _candidates(args[0], value, names)
    elif origin is tuple and Ellipsis not in args:
        yield ["x"] * len(args)
    elif origin in (tuple, list):
        yield from ([], *([item] for item in _candidates(args[0], None, names)))
    elif origin is dict:
        for item in _candidates(args[1], None, names):
            yield from ({}, *({name: item} for name in _candidates(args[0], None, names)))
    elif annotation is types.NoneType:
        yield None
    elif annotation is bool:
        yield from (True, False)
    elif annotation in (int, float):
        number = value if isinstance(value, int | float) else 1
        yield from (number * 2, number + 1, number - 1, number / 2, number // 2, 16, 0.5)
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield from SECTIONS
    else:
        yield from (*names, "x", "http://x", "{blob_id}", f"{value} x")


def _changed(before: Any, after: Any, path: Keys = ()) -> Iterator[Keys]:
    """Paths of what differs."""
    if before == after:
        return
    if type(before) is type(after) and isinstance(before, Section):
        for name in type(before).model_fields:
            yield from _changed(getattr(before, name), getattr(after, name), (*path, name))
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in before | after:
            yield from _changed(before.get(name), after.get(name), (*path, name))
    else:
        yield path


class Base:
    """A recipe's sections as its file has them, and what becomes of them."""

    def __init__(self, kind: type[Section], data: dict[str, Any]) -> None:
        self.kind, self.data = kind, data
        self.resolved = parse_sections(kind, data, "base")
        # Two of each: one of them is another than the one that is named.
        maps = [getattr(self.resolved, name, {}) for name in ("models", "sets", "pools")]
        self.names = [name for entries in maps for name in list(entries)[:2]]
        self.names += list(getattr(self.resolved, "rewards", {}))

    def with_override(self, override: str) -> Base:
        """Sections that the override leaves alone are not validated again, which takes long."""
        data = with_override(self.kind, self.data, override)
        own = {
            name: getattr(self.resolved, name)
            for name in self.kind.model_fields
            if data.get(name) is self.data.get(name)
        }
        changed = Base.__new__(Base)
        changed.resolved = parse_sections(self.kind, data | own, "changed")
        return changed

    def fault_of(self, leaf: tuple[Keys, Any, Any]) -> str | None:
        """What another value of a key changes beside it, or that it has no other value."""
        path, annotation, value = leaf
        key = ".".join(path)
        needs = [needed for pattern in NEEDS if fnmatch(key, pattern) for needed in NEEDS[pattern]]
        base = self
        if needs:
            data = self.data
            for needed in needs:
                section = ".".join(path[:-1]) if needed.startswith(".") else ""
                data = with_override(self.kind, data, section + needed)
            base = Base(self.kind, data)
        for candidate in _candidates(annotation, value, base.names):
            if candidate == (list(value) if isinstance(value, tuple) else value):
                continue
            override = f"{key}={json.dumps(candidate)}"
            try:
                after = base.with_override(override)
            except ConfigError:
                continue
            changed = list(_changed(base.resolved, after.resolved))
            if changed:
                others = {".".join(one) for one in changed if one[: len(path)] != path}
                return f"{override} changes {others}" if others else None
        return f"{key}={value!r} has no other value"


@pytest.mark.parametrize("source", _sources().items(), ids=lambda source: source[0])
def test_an_override_changes_its_key_alone(source: tuple[str, Any]) -> None:
    kind, data = source[1]
    as_read = json.dumps(data)
    base = Base(kind, data)
    leaves = list(_leaves(base.resolved, kind))
    assert len(leaves) > 250
    for leaf in leaves:
        fault = base.fault_of(leaf)
        excepted = [key for key in EXCEPTED if fnmatch(".".join(leaf[0]), key)]
        assert bool(fault) == bool(excepted), fault or f"{excepted} need no exception"
    assert json.dumps(data) == as_read, "an override changes the sections as read"


@pytest.mark.parametrize("name", BARE)
def test_a_section_that_says_nothing_is_its_default(name: str) -> None:
    kind, data = BARE[name]
    base = Base(kind, data)
    paths = {leaf[0][:end] for leaf in _leaves(base.resolved, kind) for end in range(1, 9)}
    empty = {path for path in paths if isinstance(_at(base.resolved, path), Section)}
    assert len(empty) > 5
    for path in empty - {("candidates", "engine")}:
        if _at(data, path) is None:
            assert base.with_override(f"{'.'.join(path)}={{}}").resolved == base.resolved, path


def _at(node: Any, path: Keys) -> Any:
    for part in path:
        node = node.get(part) if isinstance(node, dict) else getattr(node, part, None)
    return node


def _load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, list(overrides))


@pytest.mark.parametrize("as_yaml", [True, False])
def test_one_key_of_a_section_leaves_the_others_of_its_default(
    tmp_path: Path, as_yaml: bool
) -> None:
    text = "finetuning: {num_workers: 1}\nengines: {weak: {max_model_len: 2048}}"
    overrides = ["finetuning.num_workers=1", "engines.weak.max_model_len=2048"]
    recipe = _load(tmp_path, text) if as_yaml else _load(tmp_path, "", *overrides)
    default = Recipe()
    assert recipe.finetuning == default.finetuning.model_copy(update={"num_workers": 1})
    assert (recipe.finetuning.objective, recipe.finetuning.batch_size) == ("rm", 64)
    assert recipe.engines.strong == default.engines.strong
    assert recipe.engines.weak == default.engines.weak.model_copy(update={"max_model_len": 2048})


class Inner(Section):
    a: int = 1
    b: int = 1
    c: int = 1


class Middle(Section):
    inner: Inner = Inner(a=2)
    other: Inner = Inner(b=2)


class Outer(Section):
    middle: Middle = Middle(inner=Inner(b=3))


@pytest.mark.parametrize(
    ("given", "inner", "other"),
    [
        ({}, (1, 3, 1), (1, 2, 1)),
        ({"inner": {"c": 5}}, (1, 3, 5), (1, 2, 1)),
        ({"inner": {"b": 5}}, (1, 5, 1), (1, 2, 1)),
        ({"other": {"c": 5}}, (1, 3, 1), (1, 2, 5)),
        ({"inner": Inner(c=5)}, (1, 1, 5), (1, 2, 1)),
    ],
)
def test_the_outermost_default_of_a_section_holds(
    given: dict[str, Any], inner: tuple[int, ...], other: tuple[int, ...]
) -> None:
    middle = Outer.model_validate({"middle": given}).middle
    found = [(section.a, section.b, section.c) for section in (middle.inner, middle.other)]
    assert found == [inner, other]


def test_an_override_behind_an_alias_changes_one_place() -> None:
    two = [f"engines.{role}.model_name_or_path={role}" for role in ("strong", "weak")]
    for overrides in (two, two[::-1]):
        engines = load_recipe(RECIPES / "laptop.yaml", overrides).engines
        assert engines.strong.model_name_or_path == "strong"
        assert engines.weak.model_name_or_path == "weak"
    engines = load_recipe(RECIPES / "laptop.yaml", ["engines.strong.engine_args.seed=1"]).engines
    assert engines.strong.engine_args == engines.weak.engine_args | {"seed": 1}


def test_an_override_below_a_merge_changes_one_place(tmp_path: Path) -> None:
    text = """
engines:
  strong: &strong {model_name_or_path: big, engine_args: {compilation_config: {level: 3}}}
  weak: {<<: *strong, model_name_or_path: small}
"""
    key = "engine_args.compilation_config.level"
    engines = _load(tmp_path, text, f"engines.weak.{key}=0").engines
    assert engines.strong.engine_args == {"compilation_config": {"level": 3}}
    assert engines.weak.engine_args == {"compilation_config": {"level": 0}}


def test_an_override_adds_to_the_default_entries_of_a_map() -> None:
    data = with_override(StudiesConfig, BARE["bare studies"][1], "models.small.hidden_size=64")
    data = with_override(StudiesConfig, data, "models.trend.seed=3")
    models = parse_sections(StudiesConfig, data, "test").models
    default = StudiesConfig.model_fields["models"].default["trend"]
    assert models["trend"] == default.model_copy(update={"seed": 3})
    assert (list(models), models["small"].hidden_size) == (["trend", "small"], 64)


def test_names_of_entries_may_hold_dots() -> None:
    config = load_studies(RECIPES / "studies" / "gpu.yaml", ["models.qwen2-1.5b.seed=3"])
    assert {name for name, model in config.models.items() if model.seed} == {"qwen2-1.5b"}


def test_one_seed_is_that_of_all_stages(tmp_path: Path) -> None:
    recipe = _load(tmp_path, "finetuning: {batch_size: 8}", "seed=7", "pretraining.seed=3")
    plain = _load(tmp_path, "finetuning: {batch_size: 8}")
    assert recipe.pretraining.seed == 3
    expected = {"engine_args": {"seed": 7}}
    assert recipe.engines.weak == plain.engines.weak.model_copy(update=expected)
    assert recipe.finetuning == plain.finetuning.model_copy(update={"seed": 7})
    # Every key that is called so, but that of a hash function and those of single requests, which
    # follow the engine's where they are null.
    leaves = {".".join(path): value for path, _, value in _leaves(recipe, Recipe)}
    seeds = {key: value for key, value in leaves.items() if key.endswith("seed")}
    sampling = {key for key, value in seeds.items() if value is None}
    assert len(sampling) == 6
    assert set(seeds) - sampling - {"corpus.near_duplicates.seed", "pretraining.seed"} == {
        key for key, value in seeds.items() if value == 7
    }
    assert len(seeds) == 14
    with pytest.raises(ConfigError, match=r"sample_seed='x'"):
        _load(tmp_path, "", "seed=x")


SAME = [f"engines.{role}.model_name_or_path=one" for role in ("strong", "weak")]


@pytest.mark.parametrize("more", [[], ["engines.weak.max_model_len=512"]])
def test_one_model_cannot_be_both_strong_and_weak(tmp_path: Path, more: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "", *SAME, *more)
    message = str(caught.value)
    for part in ("construction=strong_weak", "'one'", "engines.weak.model_name_or_path"):
        assert part in message
    assert "construction=description_clip" in message


@pytest.mark.parametrize(
    "more",
    [
        "engines.weak.revision=step1000",
        "synthesis.construction=description_clip",
        "synthesis.construction=source_model",
        "synthesis.construction=execution_feedback",
    ],
)
def test_one_name_may_stand_for_both_where_something_else_makes_the_difference(
    tmp_path: Path, more: str
) -> None:
    assert _load(tmp_path, "", *SAME, more).engines.weak.model_name_or_path == "one"


def test_one_key_of_an_engine_brings_no_generator_that_nobody_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set candidates\.engine\.model_name_or_path"):
        _load(tmp_path, "", "candidates.engine.num_gpus=1")
    named = ["candidates.engine.model_name_or_path=own", "candidates.engine.num_gpus=1"]
    for text in ("", "candidates: {engine: null}"):
        assert _load(tmp_path, text, *named).generator.model_name_or_path == "own"
