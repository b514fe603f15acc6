"""Keys by their dotted names: all of them, what is said of them, and how two recipes differ."""

from __future__ import annotations

import pytest

from codepmp_ray.config.base import Section
from codepmp_ray.config.keys import differences, in_short, keys_of, shown_differences
from codepmp_ray.config.recipe import Recipe, load_recipe, parse_recipe, recipe_names
from codepmp_ray.config.studies import StudiesConfig, load_studies


@pytest.mark.parametrize("section", [Recipe(), StudiesConfig.model_construct()])
def test_every_key_can_be_set_to_its_own_default(section: Section) -> None:
    keys = {key.name: key for key in keys_of(section)}
    assert len(keys) > 100 and all(key.kind for key in keys.values())
    for name, key in keys.items():
        place = section.model_dump(mode="json")
        for part in name.split("."):
            place = place[part]
        assert place == key.value
    assert [name for name, key in keys.items() if not key.about] == []


@pytest.mark.parametrize("kind", [Recipe, StudiesConfig])
def test_the_schema_says_of_every_key_what_its_class_says(kind: type[Section]) -> None:
    found = kind.model_json_schema()
    sections = [found, *found["$defs"].values()]
    assert len(sections) > 10
    for section in sections:
        assert "Attributes:" not in section["description"]
        for name, entry in section["properties"].items():
            assert entry.get("description") or "$ref" in entry, (section["title"], name)


def test_what_a_class_says_of_its_attributes_is_found() -> None:
    keys = {key.name: key for key in keys_of(Recipe())}
    assert keys["engines.strong.engine_args"].about.startswith("passed to vLLM's AsyncEngineArgs")
    both = [keys[f"engines.weak.{name}"].about for name in ("num_cpus", "num_gpus")]
    assert both[0] == both[1] and both[0].endswith("and 0 otherwise.")
    assert keys["synthesis.gates.max_length_ratio"].about.endswith("tell the label.")
    assert not keys["engines.strong.max_actors"].changes_result
    assert keys["engines.strong.kind"].kind == "Literal['vllm', 'fake']"


def test_differences_are_of_keys_that_change_a_result() -> None:
    old = parse_recipe({"corpus": {"max_files": 96}, "candidates": {"task": "mbpp"}}, "test")
    data = old.model_dump(mode="json")
    new = parse_recipe({"corpus": {"max_files": 200}, "name": "x", "run_dir": "y"}, "test")
    found = {"corpus.max_files": (96, 200), "candidates.task": ("mbpp", "humaneval")}
    assert differences(data, new) == found
    assert list(differences(data, new, ("corpus",))) == ["corpus.max_files"]
    assert differences(data, old) == {}
    # A key that came later had its default; the name of a section is no prefix of another's.
    del data["corpus"]["min_lines"], data["synthesis"]
    assert differences(data, old) == {}
    assert differences(data, new, ("corp", "candidate")) == {}


def test_values_are_shown_in_one_short_line() -> None:
    assert (in_short("a\n b"), in_short(""), in_short(None)) == ("a b", '""', "null")
    assert in_short("x" * 99) == "x" * 57 + "..."
    many = {f"k{i}": (i, i + 1) for i in range(9)}
    assert shown_differences(many, 2) == "k0 0 -> 1, k1 1 -> 2, and 7 more"


def test_recipes_of_the_package_have_names(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # away from the checkout
    assert {"laptop", "qwen2-1.5b-math"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).name == name
    for name in recipe_names("studies"):
        assert load_studies(name).name
    (tmp_path / "laptop").write_text("name: mine")
    assert load_recipe("laptop").name == "mine"  # a file of one's own comes first
    assert load_recipe(None, ["name=none"]).name == "none"
