"""What travels with a submitted job: a recipe of its own kind whose places all machines know."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from codepmp_ray.command import groups, serving  # noqa: F401 - groups fills the registry
from codepmp_ray.command.registry import SUBMITTED_VARIABLE
from codepmp_ray.command.submitting import _listing_digest, resolve
from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.config.base import Section
from codepmp_ray.config.carried import NAME, VARIABLE, as_text
from codepmp_ray.config.overrides import section_type
from codepmp_ray.config.places import ENDINGS, MODELS, NAMES, Place, places_of
from codepmp_ray.config.recipe import Recipe, load_recipe, recipe_names
from codepmp_ray.config.studies import StudiesConfig, load_studies
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import open_stage, stage_fingerprints

COMMON = ["run_dir=/mnt/x"]
# Keys that hold text which is no place, or (paths of studies) one below data_dir.
# A new key goes here or into places.py.
NOT_PLACES = frozenset(
    """
    name title split subset revision license repo site hub_id prompt_format reasoning_parser
    stop columns function_column section_column column test_split paper_set stands_for made_by
    test_of generators model models rewards sets pools train_set code_pairs generator_pairs
    constructions languages allowed_licenses packages shared_process served_model_name host
    cors_origins metrics_token_sha256 admin_key_sha256 endpoint api_key_env reuse text_field
    score_field engine_args chat_template chat_template_kwargs label_selector kinds describe
    answer reference change tests label tasks paths test_paths target_modules best_metric
    otlp_traces_endpoint ceiling_set
    """.split()  # noqa: SIM905
)


def text_keys(kind: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    """Every key below a section that may hold a text, with its section."""
    for name, info in kind.model_fields.items():
        inner = section_type(info.annotation)
        if inner is not None:
            yield from text_keys(inner)
        elif _holds_text(info.annotation):
            yield kind, name


def _holds_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Literal:
        return False
    return annotation is str or any(map(_holds_text, typing.get_args(annotation)))


@pytest.mark.parametrize("kind", [Recipe, StudiesConfig])
def test_of_every_key_it_is_known_whether_it_names_a_place(kind: type[Section]) -> None:
    for section, name in text_keys(kind):
        is_place = name in NAMES or name in MODELS or name.endswith(ENDINGS)
        is_place = is_place or (name == "pools" and section is AuditConfig)
        is_other = name in NOT_PLACES or name.endswith("_column")
        assert is_place or is_other, f"{section.__name__}.{name}"


@pytest.mark.parametrize(
    ("value", "hub", "expected"),
    [
        ("/mnt/x", False, False),
        ("file://" + "/mnt/x", False, False),
        ("s3://bucket/x", False, False),
        ("https://host/x.parquet", False, False),
        ("data/x", False, True),
        ("./x", True, True),
        ("../x", True, True),
        ("~/x", True, True),
        ("file://x", False, True),
        ("x.jsonl", False, True),
        ("owner/name", True, False),
        ("hf://owner/name@main", True, False),
        ("builtin:smollm2-135m-instruct", True, False),
        ("runs/a/model", True, True),
        ("gpt2", True, False),
    ],
)
def test_which_places_another_machine_would_miss(value: str, hub: bool, expected: bool) -> None:
    assert Place("a", value, hub).is_relative is expected


def test_a_folder_here_is_no_name_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert Place("a", "owner/name", True).is_relative and Place("a", "owner", True).is_relative


@pytest.mark.parametrize(
    "override",
    [
        "run_dir=x",
        "corpus.source={kind: parquet, path: x}",
        "corpus.filters.opt_out_path=x",
        "corpus.near_duplicates.earlier=[/mnt/a, x]",
        "corpus.decontamination.sets=[{name: a, path: x, columns: [b]}]",
        "engines.strong.model_name_or_path=./x",
        "engines.strong.chat_template=x.jinja",
        "synthesis.threads.path=x",
        "pretraining.data=[{kind: preference, path: x}]",
        "finetuning.model_name_or_path=a/b/x",
        "candidates.task_path=x",
        "candidates.pool_path=x",
        "serving.model_path=./x",
        "serving.api_keys_file=x",
        "serving.weight_roots=[x]",
        "batch_scoring.path=x",
        "accuracy.tasks=[{name: reward_bench, path: x}]",
        "accuracy.process_bench=x",
        "audit.pools=[x]",
        "pool_statistics.path=x",
    ],
)
def test_a_relative_place_anywhere_is_refused_with_its_key(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key}[^ ]*=[^ ]*x[^ ]* is relative") as caught:
        resolve(["pipeline", *COMMON, override])
    assert "s3://" in caught.value.remedy


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_travels_makes_the_same_stages(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(name, ["seed=3"])
    monkeypatch.setenv(VARIABLE, as_text(recipe))
    assert load_recipe(NAME) == recipe
    assert stage_fingerprints(load_recipe(NAME)) == stage_fingerprints(recipe)


@pytest.mark.parametrize("name", recipe_names("studies"))
def test_recipes_of_studies_travel_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_studies(name)
    monkeypatch.setenv(VARIABLE, as_text(config))
    assert load_studies(NAME) == config
    arguments = ["-c", name, "data_dir=/mnt/data", "studies.evidence.keep_dir=/mnt/k", *COMMON]
    asked = resolve(["study", *arguments, "--plan", "--name", "table1"])
    assert asked.arguments == ("--name", "table1", "--plan", "--config", NAME)


def test_a_recipe_that_did_not_travel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set"):
        load_recipe(NAME)
    monkeypatch.setenv(VARIABLE, "{")
    with pytest.raises(ConfigError, match="not JSON"):
        load_recipe(NAME)


def test_names_files_and_overrides_are_resolved_here(tmp_path: Path) -> None:
    (tmp_path / "some.args").write_text("corpus.min_lines=7\nname=a b\n")
    (tmp_path / "own.yaml").write_text("corpus: {max_files: 3}\n")
    asked = resolve(
        ["pairs", "make", "-c", f"{tmp_path}/own.yaml", f"@{tmp_path}/some.args", *COMMON]
    )
    assert (asked.spec.job, asked.arguments) == ("synthesize", ("--config", NAME))
    corpus = asked.settings.corpus
    assert (corpus.max_files, corpus.min_lines, asked.settings.name) == (3, 7, "a b")


def test_a_model_without_a_recipe_keeps_the_settings_that_suit_it() -> None:
    asked = resolve(["serve", "/mnt/model", "serving.port=0"])
    assert asked.arguments == ("/mnt/model", "serving.port=0") and not asked.env_vars
    named = resolve(["serve", "owner/name", "--config", "laptop", *COMMON])
    assert named.arguments == ("owner/name", "--config", NAME)


def test_options_are_typed_again() -> None:
    words = ["--reason", "a", "--reason", "b", "--json", "--reuse", "corpus"]
    asked = resolve(["replay", *COMMON, *words])
    assert sorted(asked.arguments[:-2]) == sorted(words) and asked.options["reason"] == ["a", "b"]


def test_identity_is_of_settings_files_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("a = 1\n")
    line = ["corpus", *COMMON, f"corpus.source={{kind: folder, path: {code}, license: MIT}}"]
    first = resolve(line).identity
    assert resolve(line).identity == first
    assert resolve([*line, "corpus.min_lines=7"]).identity != first
    (code / "b.py").write_text("b = 1\n")
    assert resolve(line).identity != first
    code_before = resolve(line).code
    monkeypatch.setattr("codepmp_ray.versions.code_digest", lambda: "other")
    assert resolve(line).code == "other" != code_before


def test_of_a_large_folder_no_more_than_the_first_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codepmp_ray.command.submitting._MAX_LISTED", 3)
    for name in ("a/1", "a/\udcff", "b/1", "c/1", "c/2"):  # one is no UTF-8
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    looked: list[str] = []
    stat = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda self, **more: looked.append(self.name) or stat(self, **more)
    )
    _listing_digest(tmp_path)
    assert looked == ["1", "\udcff", "1"]


def test_a_job_is_done_while_the_run_directory_says_so(tmp_path: Path) -> None:
    asked = resolve(["corpus", f"run_dir={tmp_path}/run"])
    assert not asked.is_done()
    stage = open_stage(asked.settings, "corpus")
    stage.complete({})
    assert asked.is_done()
    assert not resolve(["corpus", "--dry-run", f"run_dir={tmp_path}/run"]).is_done()
    assert not resolve(["status", f"run_dir={tmp_path}/run"]).is_done()
    stage.remove()
    assert not asked.is_done()


def test_credentials_that_others_could_read_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    asked = resolve(["evaluate", *COMMON, "evaluation.endpoint=http://any:KEY@host:9000"])
    said = capsys.readouterr().err
    assert said.startswith("evaluation.endpoint: ") and "jobs API" in said and "KEY" not in said
    assert "KEY" not in asked.line and "KEY" in asked.env_vars[VARIABLE]


def test_places_of_studies_lie_below_their_data_dir() -> None:
    config = load_studies("gpu", ["data_dir=/mnt/d", "run_dir=/mnt/x"])
    assert not [place for place in places_of(config) if place.is_relative]


@pytest.mark.parametrize("key", [None, "", "a-key"])
def test_a_submitted_service_makes_no_key(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("laptop", COMMON)
    monkeypatch.delenv("CODEPMP_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("CODEPMP_API_KEY", key)
    serving._require_key_of_one_s_own(recipe)  # on one's own terminal it is shown to nobody else
    monkeypatch.setenv(SUBMITTED_VARIABLE, "{}")
    serving._require_key_of_one_s_own(load_recipe(None, ["serving.api_keys_file=/mnt/keys"]))
    handle: Any = SimpleNamespace(model_name="m", url="http://h", api_key="MADE", key_was_made=True)
    assert "MADE" not in serving.describe(handle)
    if key:
        serving._require_key_of_one_s_own(recipe)
        return
    with pytest.raises(ConfigError, match=r"CODEPMP_API_KEY is not set.*api_keys_file"):
        serving.serve(recipe, [], None)
