"""Run directories: fingerprints, completion, and what the manifest says."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from codepmp_ray import runs, versions
from codepmp_ray.config.base import Section
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation import pool_statistics
from codepmp_ray.evaluation.audit import run as audit
from codepmp_ray.evaluation.pairwise import run as accuracy
from codepmp_ray.runs import SIDE_JOBS, STAGE_JOBS, open_stage, run_manifest, stage_fingerprints

Keys = tuple[str, ...]


def _leaves(
    section: Section, prefix: tuple[str, ...] = (), within: bool = False
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """(path, is operational, by itself or `within` a section that is) of what is no section."""
    for name, info in type(section).model_fields.items():
        value, extra = getattr(section, name), info.json_schema_extra
        is_operational = within or bool(isinstance(extra, dict) and extra.get("operational"))
        if isinstance(value, Section):
            yield from _leaves(value, (*prefix, name), is_operational)
        elif len(typing.get_args(info.annotation)) != 1:  # a Literal of one value cannot change
            yield (*prefix, name), is_operational


def _other_values(section: Section, name: str) -> list[Any]:
    """Values that differ from the present one; at least one of them is a legal one."""
    value, annotation = getattr(section, name), type(section).model_fields[name].annotation
    nested = [typing.get_args(arg) for arg in typing.get_args(annotation)]
    choices = [a for args in (typing.get_args(annotation), *nested) for a in args]
    choices = [a for a in choices if isinstance(a, str)]
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, value - 1, value * 0.9, 0.05, value * 2]
        case str():
            return [c for c in choices if c != value] + [value + "x"]
        case tuple():
            more = ("x", {"path": "x"}, "rm_bench", {"name": "m", "column": "c"}, 1)
            return [*((*value, item) for item in more), value[:-1]]
        case dict():
            more = [("seed", 1), ("label", "x"), ("x", {}), ("x", {"model_path": "x"})]
            return [{**value, name: item} for name, item in more]
        case _:
            engine = {"model_name_or_path": "x"}
            return [*choices, True, 2, 10**6, "x", "http://x", "s3://x/{blob_id}", {}, engine]


def _changed(recipe: Recipe, path: Keys, value: Any) -> Recipe:
    data = recipe.model_dump()
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return Recipe.model_validate(data)


def _variant(recipe: Recipe, path: Keys) -> Recipe:
    section: Any = recipe
    for part in path[:-1]:
        section = getattr(section, part)
    for value in _other_values(section, path[-1]):
        try:
            return _changed(recipe, path, value)
        except ValidationError:
            continue
    raise AssertionError(f"no legal other value found for {'.'.join(path)}")


_BEST = {"eval_steps": 1, "best_metric": "eval_loss"}
# A base in which every field may be changed by itself.
_BASE = Recipe.model_validate(
    {
        "corpus": {
            "source": {"kind": "folder", "path": "x"},
            # Not the one that the recipe's own task brings along.
            "decontamination": {"sets": [{"name": "other", "path": "x", "columns": ["text"]}]},
        },
        "engines": {"strong": {"max_actors": 9}, "weak": {"max_actors": 9}},
        "planning": {"price_per_gpu_hour": 1.0},
        "pretraining": {"max_steps": 1, **_BEST},
        "finetuning": {"max_steps": 1, "schedule": "wsd", **_BEST},
        "pool_statistics": {"rewards": [{"name": "ours", "column": "c"}]},
    }
)


_LEAVES = {".".join(path): (path, operational) for path, operational in _leaves(_BASE)}


@pytest.mark.parametrize(("path", "operational"), list(_LEAVES.values()), ids=list(_LEAVES))
def test_result_settings_change_a_fingerprint_and_operational_ones_none(
    path: Keys, operational: bool
) -> None:
    base = _with_a_model(path[0]) if path[-1] == "revision" else _BASE
    if path[-1] == "kinds":
        made = {"task": "reasoning_gym", "kinds": {"gcd": {}}}
        base = Recipe.model_validate({**_BASE.model_dump(), "candidates": made})
    if path[-1] == "early_stopping_min_delta":
        base = _changed(_BASE, (path[0], "early_stopping_patience"), 1)
    assert (_names(base) == _names(_variant(base, path))) == operational


def _with_a_model(section: str) -> Recipe:
    """A revision is of a model that its section names."""
    key = {"serving": "model_path"}.get(section, "model_name_or_path")
    if section not in ("pretraining", "finetuning", "serving"):
        return _BASE
    return _changed(_BASE, (section, key), "me/base")


def _names(recipe: Recipe) -> dict[str, str]:
    """Fingerprints of the stages, and of what else has a folder of its own."""
    folders = {
        "accuracy": accuracy.folder_of(recipe),
        "audit": audit.folder_of(recipe),
        "pool_statistics": pool_statistics.folder_of(recipe),
    }
    return stage_fingerprints(recipe) | folders


@pytest.mark.parametrize(
    ("path", "value", "stale"),
    [
        ("corpus.min_lines", 5, "corpus synthesis pretraining finetuning evaluation scoring"),
        ("engines.weak.dtype", "float32", "synthesis pretraining finetuning evaluation scoring"),
        ("synthesis.clip_fraction", 0.2, "synthesis pretraining finetuning evaluation scoring"),
        ("pretraining.seed", 1, "pretraining finetuning evaluation scoring"),
        ("candidates.split_seed", 1, "candidates grades finetuning evaluation scoring"),
        ("evaluation.sandbox.memory_mb", 256, "grades finetuning evaluation scoring"),
        ("finetuning.seed", 1, "finetuning evaluation scoring"),
        ("serving.dtype", "bfloat16", "evaluation scoring"),
        ("serving.model_path", "x", "evaluation scoring"),
        ("serving.engine", "torch", "evaluation scoring"),
        ("serving.max_model_len", 64, "evaluation scoring"),
        ("serving.max_candidates", 9, "evaluation"),
        ("batch_scoring.rows_per_shard", 9, "scoring"),
        ("evaluation.confidence", 0.9, "evaluation"),
    ],
)
def test_a_change_makes_its_own_stage_and_those_after_it_stale(
    path: str, value: Any, stale: str
) -> None:
    before = stage_fingerprints(_BASE)
    after = stage_fingerprints(_changed(_BASE, tuple(path.split(".")), value))
    assert [name for name in before if before[name] != after[name]] == sorted(
        stale.split(), key=list(before).index
    )


def test_a_stage_with_data_of_its_own_depends_on_their_content_and_not_on_the_runs_pairs(
    tmp_path: Path,
) -> None:
    folder, file = tmp_path / "set", tmp_path / "set" / "a.jsonl"
    folder.mkdir()
    file.write_text("1")
    own = [{"path": str(folder)}]
    recipe = _changed(_BASE, ("pretraining", "data"), own)
    recipe = _changed(recipe, ("finetuning", "data"), [{"path": str(file)}])

    def stale(after: Recipe, before: dict[str, str]) -> str:
        return " ".join(
            name for name, old in before.items() if stage_fingerprints(after)[name] != old
        )

    before = stage_fingerprints(recipe)
    assert stale(_changed(recipe, ("corpus", "min_lines"), 5), before) == "corpus synthesis"
    graded = _changed(recipe, ("candidates", "split_seed"), 1)
    assert stale(graded, before) == "candidates grades evaluation"
    file.write_text("22")
    assert stale(recipe, before) == "pretraining finetuning evaluation scoring"
    (folder / "b.jsonl").write_text("")
    both = stage_fingerprints(recipe)
    file.rename(folder / "c.jsonl")  # contents move, which is another order of rows
    assert stale(recipe, both) == "pretraining finetuning evaluation scoring"
    moved = stage_fingerprints(recipe)
    (folder / "c.jsonl").rename(folder / "c.txt")  # which is not read as part of a folder
    assert stale(recipe, moved) == "pretraining finetuning evaluation scoring"


def _stale(before: Recipe, after: Recipe) -> list[str]:
    prints = stage_fingerprints(after)
    return [name for name, old in stage_fingerprints(before).items() if prints[name] != old]


def test_how_often_is_evaluated_matters_only_where_it_chooses_the_step() -> None:
    plain = Recipe()
    assert _stale(plain, _changed(plain, ("finetuning", "eval_steps"), 5)) == []
    chosen = _changed(_BASE, ("finetuning", "eval_steps"), 5)
    assert _stale(_BASE, chosen) == ["finetuning", "evaluation", "scoring"]


def test_a_model_trained_on_its_owners_model_and_data_depends_on_nothing_before_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").touch()
    own = {"model_name_or_path": "me/base", "data": [{"path": str(tmp_path / "a.jsonl")}]}
    recipe = Recipe.model_validate({"pretraining": own, "finetuning": own})
    for path, value in (
        ("corpus.max_files", 10),
        ("engines.strong.model_name_or_path", "another"),
        ("engines.weak.dtype", "float32"),
        ("synthesis.clip_fraction", 0.3),
        ("candidates.split_seed", 1),
        ("pretraining.batch_size", 512),
    ):
        stale = _stale(recipe, _changed(recipe, tuple(path.split(".")), value))
        assert "finetuning" not in stale, path
        assert ("pretraining" in stale) == path.startswith("pretraining"), path


def test_other_weights_under_the_old_path_are_another_model(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    weights = folder / "model.bin"
    weights.write_bytes(b"1")
    for section, stages in (
        ("engines.strong", {"synthesis", "pretraining", "candidates"}),
        ("engines.weak", {"synthesis"}),
        ("candidates.engine", {"candidates"}),
        ("pretraining", {"pretraining"}),
        ("finetuning", {"finetuning"}),
    ):
        recipe = load_recipe_of(section, str(folder))
        before = stage_fingerprints(recipe)
        weights.write_bytes(weights.read_bytes() + b"2")
        after = stage_fingerprints(recipe)
        assert {name for name in before if before[name] != after[name]} >= stages, section


def load_recipe_of(section: str, model: str) -> Recipe:
    """A recipe that names `model` in one section."""
    data: dict[str, Any] = {"model_name_or_path": model}
    for part in reversed(section.split(".")):
        data = {part: data}
    return Recipe.model_validate(data)


def test_the_standard_library_of_another_interpreter_is_another_corpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdlib = Recipe()
    before = stage_fingerprints(stdlib), stage_fingerprints(_BASE)
    monkeypatch.setattr(runs.platform, "python_version", lambda: "3.99.0")
    assert stage_fingerprints(stdlib)["corpus"] != before[0]["corpus"]
    assert stage_fingerprints(_BASE) == before[1]


def test_every_stage_has_a_fingerprint_and_a_job() -> None:
    assert list(stage_fingerprints(Recipe())) == [*STAGE_JOBS, *SIDE_JOBS]


def _recipe(tmp_path: Path) -> Recipe:
    return Recipe(run_dir=str(tmp_path / "run"))


def test_opening_a_stage_creates_nothing(tmp_path: Path) -> None:
    stage = open_stage(_recipe(tmp_path), "corpus")
    assert not stage.is_complete
    assert list(tmp_path.iterdir()) == []
    assert Path(stage.uri).name == f"corpus-{stage.fingerprint}"


def test_a_stage_that_is_not_done_names_the_job_to_run(tmp_path: Path) -> None:
    stage = open_stage(_recipe(tmp_path), "synthesis")
    stage.start()
    for ask in (stage.require, stage.summary):
        with pytest.raises(InputError, match=r"'synthesis'.*python -m jobs\.synthesize"):
            ask()


def test_a_stage_is_completed_once(tmp_path: Path) -> None:
    stage = open_stage(_recipe(tmp_path), "corpus")
    stage.start()
    stage.complete({"num_snippets": 3})
    stage.complete({"num_snippets": 99})
    again = open_stage(_recipe(tmp_path), "corpus").require()
    assert again.summary()["num_snippets"] == 3
    assert again.summary()["fingerprint"] == stage.fingerprint


def test_the_manifest_tells_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.sys, "argv", ["some/folder/jobs/corpus.py", "corpus.min_lines=5"])
    recipe = _recipe(tmp_path)
    stage = open_stage(recipe, "corpus")
    stage.start()
    manifest = json.loads((Path(stage.uri) / "manifest.json").read_text())
    assert manifest["command"] == "corpus.py corpus.min_lines=5"
    assert Recipe.model_validate(manifest["recipe"]) == recipe
    assert manifest["fingerprints"] == stage_fingerprints(recipe)
    assert manifest["versions"]["pyarrow"]
    assert manifest["python"].startswith("3.")
    assert set(run_manifest(recipe)) | {"num_shards", "models"} == set(manifest)


def test_outside_a_checkout_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "versions.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("CODEPMP_COMMIT", raising=False)
    assert versions.git_commit() is None
    monkeypatch.setenv("CODEPMP_COMMIT", "abc")  # of whoever submitted what runs here
    assert versions.git_commit() == "abc"
