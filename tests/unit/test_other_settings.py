"""Why a finished stage is made again, and taking it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codepmp_ray import runs
from codepmp_ray.cluster.label_noise import recipe_of_role
from codepmp_ray.command.reusing import explain, with_reused
from codepmp_ray.config.branches import Branch
from codepmp_ray.config.recipe import Recipe, branch_recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.other_settings import nearest, other_stages, reusing
from codepmp_ray.runs import STAGE_JOBS, open_stage, stage_fingerprints

STAGES = tuple(STAGE_JOBS)


def recipe_in(folder: Path, **sections: Any) -> Recipe:
    return parse_recipe({"run_dir": str(folder), **sections}, "test")


def finish(recipe: Recipe, *stages: str) -> None:
    for name in stages:
        stage = open_stage(recipe, name)
        stage.start()
        stage.complete({"num_snippets": 1})


@pytest.fixture
def old(tmp_path: Path) -> Recipe:
    """Everything is complete with these settings."""
    recipe = recipe_in(tmp_path / "run", corpus={"max_files": 96})
    finish(recipe, *STAGES)
    return recipe


@pytest.fixture
def new(old: Recipe) -> Recipe:
    return recipe_in(
        Path(old.run_dir), corpus={"max_files": 200}, candidates={"num_eval_problems": 9}
    )


def test_the_keys_that_differ_are_said_once_and_what_follows_is_named(
    new: Recipe, old: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(old, STAGES)
    assert capsys.readouterr().err == ""  # nothing is made again
    explain(new, STAGES)
    lines = capsys.readouterr().err.splitlines()
    corpus, candidates = (open_stage(old, name) for name in ("corpus", "candidates"))
    assert lines == [
        f"corpus is made again, though {corpus.folder} is complete: corpus.max_files 96 -> 200. "
        f"--reuse corpus={corpus.fingerprint} takes that.",
        f"candidates is made again, though {candidates.folder} is complete: "
        f"candidates.num_eval_problems 82 -> 9. --reuse candidates={candidates.fingerprint} takes "
        "that.",
        "So are synthesis, pretraining, grades, finetuning, evaluation, which follow from it.",
    ]
    open_stage(new, "corpus").start()
    explain(new, ("corpus",))  # begun: it resumes
    assert capsys.readouterr().err == ""


def test_operational_keys_are_no_reason_and_equal_keys_are_said_to_be_equal(
    old: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = {"engines": {"strong": {"max_actors": 4}}, "name": "other"}
    same = recipe_in(Path(old.run_dir), corpus={"max_files": 96}, **sections)
    assert other_stages(same) == []
    monkeypatch.setitem(runs._STAGE_VERSION, "corpus", 99)
    explain(same, ("corpus",))
    assert "equal keys, but other code, files, weights or Python" in capsys.readouterr().err


def test_of_several_the_nearest_is_compared_with_and_one_has_to_be_named(
    old: Recipe, new: Recipe
) -> None:
    far = recipe_in(Path(old.run_dir), corpus={"max_files": 1, "min_lines": 2})
    finish(far, "corpus")
    others = other_stages(new)
    assert [other.name for other in others].count("corpus") == 2
    found = nearest("corpus", others)
    assert found is not None and found.fingerprint == open_stage(old, "corpus").fingerprint
    with pytest.raises(ConfigError) as several:
        reusing(new, ["corpus"])
    for recipe in (old, far):
        assert f"--reuse corpus={open_stage(recipe, 'corpus').fingerprint}" in str(several.value)
    assert "corpus.min_lines 2 -> " in str(several.value)
    named, _ = reusing(new, [f"corpus={open_stage(far, 'corpus').fingerprint}"])
    assert named.corpus == far.corpus


def test_a_reused_stage_brings_its_section_and_stands_in_what_follows(
    old: Recipe, new: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    made = with_reused(new, ["corpus"])
    before, plain, after = map(stage_fingerprints, (old, new, made))
    assert f"Reusing corpus-{before['corpus']}: corpus.max_files 96 -> 200." in (
        capsys.readouterr().err
    )
    assert made.reuse == {"corpus": before["corpus"]}
    assert made.corpus == old.corpus and made.candidates == new.candidates
    assert open_stage(made, "corpus").is_complete
    # What follows from that corpus alone is what followed from it before.
    assert {name for name in before if after[name] == before[name]} == {
        *("corpus", "synthesis", "pretraining")
    }
    assert after["candidates"] == plain["candidates"]
    assert Recipe.model_validate(made.model_dump(mode="json")) == made
    # The key of a recipe does what the option does.
    assert with_reused(new.model_copy(update={"reuse": made.reuse}), []) == made


def test_a_fingerprint_of_older_code_is_what_later_stages_stand_on(
    old: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stage_fingerprints(old)
    monkeypatch.setitem(runs._STAGE_VERSION, "corpus", 99)
    assert stage_fingerprints(old)["synthesis"] != before["synthesis"]
    made, _ = reusing(old, ["corpus"])
    assert stage_fingerprints(made) == before


def test_what_a_reused_stage_was_made_from_comes_along(old: Recipe, new: Recipe) -> None:
    before = stage_fingerprints(old)
    made, taken = reusing(new, ["pretraining"])
    names = ("corpus", "synthesis", "pretraining")
    assert made.reuse == {name: before[name] for name in names}
    assert {other.name for other in taken} == set(names)
    open_stage(old, "synthesis").remove()
    made, _ = reusing(new, ["pretraining"])
    assert made.reuse == {name: before[name] for name in ("corpus", "pretraining")}


def test_what_cannot_be_reused_is_refused(old: Recipe, new: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no stage corpsu \(did you mean corpus\?\)"):
        reusing(new, ["corpsu"])
    with pytest.raises(InputError, match=r"corpus-0123456789ab is not complete.*Complete there"):
        reusing(new, ["corpus=0123456789ab"])
    with pytest.raises(InputError, match="holds no complete corpus of other settings"):
        reusing(recipe_in(tmp_path / "new"), ["corpus"])
    # Of these settings it is complete: there is nothing to take.
    assert reusing(old, ["corpus"]) == (old, [])
    begun = recipe_in(Path(old.run_dir), corpus={"max_files": 5})
    open_stage(begun, "corpus").start()
    with pytest.raises(InputError, match="is not complete"):
        reusing(new, [f"corpus={open_stage(begun, 'corpus').fingerprint}"])


def test_nothing_is_written_into_a_folder_that_is_reused(new: Recipe) -> None:
    forced = new.model_copy(update={"reuse": {"corpus": "0123456789ab"}})
    with pytest.raises(InputError, match=r"reuse\.corpus=0123456789ab: .* is not complete"):
        open_stage(forced, "corpus").start()


def test_variants_of_a_recipe_are_made_themselves(old: Recipe, new: Recipe) -> None:
    made, _ = reusing(new, ["finetuning"])
    assert {"pretraining", "finetuning", "grades", "candidates", "synthesis"} <= made.reuse.keys()
    branch = branch_recipe(made, Branch(total_steps=4, leaves_at=2), 8)
    assert branch.reuse.keys() & {"pretraining", "finetuning"} == set()
    assert open_stage(branch, "pretraining").folder != open_stage(made, "pretraining").folder
    role = recipe_of_role(made, "weak")
    assert open_stage(role, "candidates").folder != open_stage(made, "candidates").folder


def test_a_manifest_that_cannot_be_read_stops_nobody_but_cannot_be_reused(
    old: Recipe, new: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = open_stage(old, "corpus")
    stage.store.put("manifest.json", b"{")
    (other,) = [found for found in other_stages(new) if found.name == "corpus"]
    assert "manifest.json holds no recipe" in other.why
    explain(new, ("corpus",))
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="holds no recipe"):
        reusing(new, ["corpus"])
