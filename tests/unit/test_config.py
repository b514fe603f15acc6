"""Recipes: overrides, refusals that name the key and the value, and immutability."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.recipe import RECIPES, Recipe, load_recipe, parse_recipe
from codepmp_ray.config.studies import load_studies
from codepmp_ray.errors import ConfigError


def load(tmp_path: Path, text: str = "", *overrides: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, list(overrides))


def get(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Recipe()


def test_overrides_beat_the_file_and_the_later_beats_the_earlier(tmp_path: Path) -> None:
    text = "corpus: {min_lines: 5, max_lines: 50}"
    recipe = load(tmp_path, text, "corpus.min_lines=6", "corpus.min_lines=7")
    assert (recipe.corpus.min_lines, recipe.corpus.max_lines) == (7, 50)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pretraining.learning_rate=1e-5", 1e-5),
        ("pretraining.learning_rate=1.0e-5", 1e-5),
        ("pretraining.learning_rate=1E-5", 1e-5),
        ("pretraining.learning_rate=3", 3.0),
        ("pretraining.adam_epsilon=1e-08", 1e-8),
        ("pretraining.max_steps=20", 20),
        ("pretraining.max_steps=null", None),
        ("pretraining.bf16=false", False),
        ("corpus.languages=[python, java]", ("python", "java")),
        ("corpus.languages=[]", ()),
        ("synthesis.chosen.stop=['a=b', '```']", ("a=b", "```")),
        ("corpus.source.path=folder with spaces/x", "folder with spaces/x"),
        ("run_dir=runs/a=b", "runs/a=b"),
        ("name=été", "été"),
        ("engines.strong.engine_args={enforce_eager: true}", {"enforce_eager": True}),
        ("engines.strong.engine_args.block_size=16", {"block_size": 16}),
        ("serving.port=0", 0),
    ],
)
def test_override_values_have_the_type_of_their_key(
    tmp_path: Path, override: str, expected: object
) -> None:
    value = get(load(tmp_path, "", override), override.partition("=")[0].split(".block_size")[0])
    assert value == expected
    assert type(value) is type(expected)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_every_float_survives_the_command_line(value: float) -> None:
    recipe = load_recipe(os.devnull, [f"pretraining.learning_rate={value!r}"])
    assert recipe.pretraining.learning_rate == value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("corpus.min_linse=4", ["corpus.min_linse", "did you mean min_lines?"]),
        ("corpsu.min_lines=4", ["corpsu", "did you mean corpus?"]),
        ("synthesis.chosen.temprature=1", ["synthesis.chosen.temprature", "temperature"]),
        ("engines.strong.zzz=1", ["engines.strong.zzz", "known keys: ", "max_model_len"]),
        ("zzz=1", ["unknown key zzz", "known keys: ", "run_dir"]),
        ("corpus.min_lines=0", ["corpus.min_lines=0", "1"]),
        ("corpus.min_lines=200", ["min_lines=200", "max_lines=80"]),
        ("corpus.min_lines=4.5", ["corpus.min_lines=4.5", "integer"]),
        ("corpus.min_lines=many", ["corpus.min_lines='many'", "integer"]),
        ("corpus.source.kind=folder", ["source.kind=folder needs source.path"]),
        ("corpus.source.kind=git", ["corpus.source.kind='git'", "stdlib"]),
        ("pretraining.learning_rate=-1e-5", ["pretraining.learning_rate", "-1e-5", "greater"]),
        ("pretraining.learning_rate=.nan", ["pretraining.learning_rate", "nan"]),
        ("pretraining.learning_rate=.inf", ["pretraining.learning_rate", "inf"]),
        ("pretraining.learning_rate=1e999", ["pretraining.learning_rate", "1e999", "finite"]),
        ("pretraining.warmup_ratio=0.95", ["warmup_ratio=0.95", "decay_ratio=0.1"]),
        ("pretraining.max_length=4096", ["max_tokens_per_micro_batch=2048", "max_length=4096"]),
        ("pretraining.objective=ppo", ["pretraining.objective='ppo'", "pmp"]),
        ("engines.strong.min_actors=3", ["min_actors=3", "max_actors=1"]),
        ("engines.weak.num_cpus=0", ["engines.weak.num_cpus=0", "greater than 0"]),
        ("candidates.num_eval_samples=257", ["candidates.num_eval_samples=257", "256"]),
        ("evaluation.confidence=1", ["evaluation.confidence=1", "less than 1"]),
        ("evaluation.endpoint=host:80", ["endpoint='host:80'", "http"]),
        ("serving.port=65536", ["serving.port=65536", "65535"]),
        ("synthesis.clip_fraction=1", ["synthesis.clip_fraction=1", "less than 1"]),
        ("synthesis.chosen.top_p=0", ["synthesis.chosen.top_p=0", "greater than 0"]),
        ('synthesis.chosen.stop=[""]', ["stop holds an empty text"]),
        ("synthesis.chosen.min_p=2", ["synthesis.chosen.min_p=2", "less than or equal to 1"]),
        ("synthesis.chosen.top_k=-1", ["synthesis.chosen.top_k=-1"]),
        ("corpus=3", ["corpus=3"]),
        ("corpus.min_lines", ["'corpus.min_lines' is not an override", "section.key=value"]),
        ("=3", ["'=3' is not an override"]),
        ("corpus.languages=[python", ["corpus.languages=[python", "not valid YAML"]),
        ("name.sub=3", ["name.sub=3", "name holds a value", "as a whole: name=value"]),
        ("candidates.engine.zzz=1", ["candidates.engine.zzz", "known keys: ", "max_model_len"]),
    ],
)
def test_a_refusal_names_the_key_the_value_and_the_way_out(
    tmp_path: Path, override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "name: x", override)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "", "corpus.min_lines=0", "serving.port=-1", "nonsense=1")
    for part in ("corpus.min_lines=0", "serving.port=-1", "nonsense"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- a\n- b\n", "holds a list"),
        (b"just text", "holds a str"),
        (b"a: [1, 2", "cannot be read"),
        (b"a: \xff\xfe", "cannot be read"),
        (b"\x00\x01\x02", "cannot be read"),
        (b"a: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"bad\.yaml {words}"):
        load_recipe(file)


def test_a_missing_recipe_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist \(recipes: .*laptop"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path)


def test_every_section_is_frozen() -> None:
    recipe = Recipe()
    for section, key, value in [
        (recipe, "name", "other"),
        (recipe.corpus.source, "kind", "folder"),
        (recipe.pretraining, "learning_rate", 1.0),
    ]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, value)


def test_a_dumped_recipe_reads_back_as_itself() -> None:
    recipe = Recipe()
    assert parse_recipe(recipe.model_dump(mode="json"), "dump") == recipe


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "kind=preference needs path"),
        ({"kind": "gsm8k_solutions"}, "kind=gsm8k_solutions needs path"),
        ({"path": "a", "hub_id": "b/c"}, "path and hub_id name two sets"),
        ({"path": "a", "split": "test"}, "split, subset and revision are of hub sets"),
        ({"path": "a", "weight": 0}, "greater than 0"),
        ({"path": "a", "prompt_format": "Q:"}, r"has no \{prompt\}"),
        ({"path": "a", "name": "../up"}, "pattern"),
        ({"path": "a", "name": ".."}, "is no name"),
        ({"path": "a", "wieght": 2}, r"data\.0\.wieght \(did you mean weight\?"),
        ({"path": "a", "kind": "hh"}, "Input should be 'preference'"),
    ],
)
def test_impossible_training_sources_are_refused(source: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe({"pretraining": {"data": [source]}}, "test")


def test_two_sources_need_two_names() -> None:
    same = [{"path": "a"}, {"path": "b"}]
    with pytest.raises(ConfigError, match="two sources are called 'preference'"):
        parse_recipe({"finetuning": {"data": same}}, "test")
    same[1]["name"] = "b"
    data = parse_recipe({"finetuning": {"data": same}}, "test").finetuning.data
    assert [source.label for source in data] == ["preference", "b"]
    assert (
        parse_recipe({"finetuning": {"data": [{"kind": "hh_rlhf"}]}}, "t")
        .finetuning.data[0]
        .hub_set
        == "Anthropic/hh-rlhf"
    )


def test_a_kind_brings_its_place_on_the_hub_unless_another_is_named() -> None:
    known = DataSourceConfig(kind="logiqa2", split="test")
    assert (known.hub_set, known.subset, known.split) == ("baber/logiqa2", "logiqa2", "test")
    assert known.revision and DataSourceConfig.model_validate(known.model_dump()) == known
    assert DataSourceConfig(kind="logiqa2", revision="mine").revision == "mine"
    for other in ({"path": "a"}, {"hub_id": "b/c"}):
        source = DataSourceConfig(kind="logiqa2", **other)
        assert source.subset is None and source.revision is None


@pytest.mark.parametrize("text", ["/x #1", "3 # three", "'a' #b", "[1, 2] #c", "a #b #c"])
def test_a_comment_in_an_override_is_refused_not_left_out(text: str) -> None:
    with pytest.raises(ConfigError, match="comment of YAML"):
        load_recipe(None, [f"name={text}"])


@pytest.mark.parametrize("text", ["'/x #1'", '"a # b"', "a#b", "'#'"])
def test_a_hash_that_is_no_comment_stays(text: str) -> None:
    assert "#" in load_recipe(None, [f"name={text}"]).name


@pytest.mark.parametrize(
    "override",
    ["run_dir=s3:/bucket/x", "corpus.filters.opt_out_path=gs:/b/x", "audit.pools=[abfs:/c/x]"],
)
def test_half_a_scheme_is_refused_not_made_a_folder(override: str) -> None:
    with pytest.raises(ConfigError, match="neither a path nor a URI") as caught:
        load_recipe(None, [override])
    assert "://" in caught.value.remedy


def test_a_recipe_of_the_other_kind_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"gpu\.yaml is a recipe of studies") as caught:
        load_recipe(RECIPES / "studies/gpu.yaml")
    assert "known keys" not in str(caught.value)
    with pytest.raises(ConfigError, match="is a recipe of the main job"):
        load_studies(RECIPES / "qwen2-1.5b-math.yaml")
    with pytest.raises(ConfigError, match="unknown key crpus"):
        load_recipe(None, ["crpus.max_files=1"])
