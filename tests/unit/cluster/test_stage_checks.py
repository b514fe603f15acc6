"""What stages ask of nodes, and whether a step fits the GPUs that they will get."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from codepmp_ray.cluster import gpu_kinds, preflight, stage_checks
from codepmp_ray.cluster.node_probe import said
from codepmp_ray.cluster.placement import Need, Offer
from codepmp_ray.cluster.stage_checks import own_questions, plan_of, plan_serving, questions_of
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.config.synthesis import EXECUTED, ConstructionName
from codepmp_ray.errors import ResourceError
from codepmp_ray.runs import STAGE_JOBS
from codepmp_ray.synthesis.constructions import make_construction
from tests.tiny_models import save_tiny_base_model

LABEL = "ray.io/accelerator-type"
ALL = tuple(STAGE_JOBS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_base_model(tmp_path_factory.mktemp("model") / "base"))


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> list[Offer]:
    found: list[Offer] = []
    for module in (preflight, stage_checks):
        monkeypatch.setattr(module, "cluster_offers", lambda: found)
    return found


def recipe_with(tmp_path: Path, **sections: Any) -> Recipe:
    return parse_recipe({"run_dir": str(tmp_path / "run"), **sections}, "test")


def subjects(recipe: Recipe, *stages: str) -> set[str]:
    return {f"{q.concern} {q.subject}" for q in questions_of(recipe, stages or ALL)}


def test_nodes_are_asked_for_every_file_that_their_tasks_read(tmp_path: Path) -> None:
    recipe = recipe_with(
        tmp_path,
        corpus={
            "source": {"kind": "parquet", "path": "s3://code/x"},
            "filters": {"opt_out_path": "/lists/out.txt"},
            "decontamination": {"sets": [{"name": "own", "path": "/sets/own.jsonl",
                                          "columns": ["text"]}]},
        },
        candidates={"task": "gsm8k", "task_path": "/tasks/gsm8k.jsonl"},
    )  # fmt: skip
    files = {
        "source corpus.source.path=s3://code/x",
        "source corpus.filters.opt_out_path=/lists/out.txt",
        "source corpus.decontamination.sets 'own'=/sets/own.jsonl",
        "source candidates.task_path=/tasks/gsm8k.jsonl",
    }
    assert files <= subjects(recipe)
    assert not any(subject.startswith("sandbox") for subject in subjects(recipe))
    assert subjects(recipe, "pretraining") & files == set()
    assert subjects(recipe, "grades") & files == {"source candidates.task_path=/tasks/gsm8k.jsonl"}


def test_code_is_to_be_executed_where_grading_is_sent(tmp_path: Path) -> None:
    where = {"role": "grader"}
    recipe = recipe_with(tmp_path, evaluation={"grader": {"label_selector": where}})
    (asked,) = [q for q in questions_of(recipe, ["grades"]) if q.concern == "sandbox"]
    assert asked.label_selector == where


@pytest.mark.parametrize("construction", get_args(ConstructionName))
def test_every_construction_is_asked_about_before_it_begins(
    tmp_path: Path, offers: list[Offer], construction: str
) -> None:
    """What executes answers needs a sandbox, what reads files can read them; the line says what
    is needed, also where no model is asked."""
    offers.append(Offer("any", {"CPU": 64.0}, {}, 1))
    engine = {"kind": "fake", "num_cpus": 0.5}
    recipe = recipe_with(
        tmp_path,
        corpus={"source": {"kind": "folder", "path": "/some/repository"}},
        engines={role: {**engine, "model_name_or_path": role} for role in ("strong", "weak")},
        synthesis={"construction": construction, "threads": {"path": "/some/threads"}},
    )
    asked = subjects(recipe, "synthesis")
    assert ("sandbox code of synthesis" in asked) == (construction in EXECUTED)
    places = {"web_pairs": "synthesis.threads.path=/some/threads",
              "commits": "corpus.source.path=/some/repository"}  # fmt: skip
    found = {name for name, place in places.items() if f"source {place}" in asked}
    assert found == {construction} & places.keys()
    line = plan_of(recipe, "synthesis", [])
    assert ("asks no model" in line) == (not make_construction(recipe.synthesis).hops()) and line


def test_each_place_that_executes_code_is_asked_with_its_own_limits(tmp_path: Path) -> None:
    limits = {"grades": 5.0, "synthesis": 7.0, "requests": 9.0}
    recipe = recipe_with(
        tmp_path,
        candidates={"task": "humaneval"},
        evaluation={"sandbox": {"time_limit_s": limits["grades"]}},
        synthesis={
            "construction": "execution_feedback", "sandbox": {"time_limit_s": limits["synthesis"]}
        },
        serving={"execute": True, "sandbox": {"time_limit_s": limits["requests"]},
                 "label_selector": {"role": "server"}},
    )  # fmt: skip
    asked = [q for q in questions_of(recipe, ALL) if q.concern == "sandbox"]
    assert len({q.key for q in asked}) == len(asked) == 3
    assert [cast(partial, q.ask).args[0].time_limit_s for q in asked] == list(limits.values())
    assert asked[-1].label_selector == {"role": "server"}


def test_what_only_the_job_reads_is_asked_of_it_alone(tmp_path: Path) -> None:
    there = tmp_path / "pairs.jsonl"
    there.write_text("{}\n")
    data = [{"path": str(there), "name": "there"}, {"path": "/no/such", "name": "gone"}]
    recipe = recipe_with(tmp_path, finetuning={"data": data, "objective": "rm"})
    found = {q.subject: said(q.ask) for q in own_questions(recipe, ALL)}
    assert found["finetuning.data 'there'"] == ""
    assert "does not exist" in found["finetuning.data 'gone'"]
    assert not any("/no/such" in subject for subject in subjects(recipe))


def test_the_first_file_is_read_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    recipe = recipe_with(tmp_path, corpus={"source": {"kind": "folder", "path": str(folder)}})
    (asked,) = [q for q in questions_of(recipe, ["corpus"]) if q.concern == "source"]
    assert "nothing is there" in said(asked.ask)
    (folder / "deep" / "a.py").write_text("x = 1\n")
    assert said(asked.ask) == ""


@pytest.mark.parametrize(
    ("kind", "num_bytes", "said"),
    [
        ("T4", 16e9, "2 x (1 CPU, 1 GPU); a step holds 0.0 GB of the T4 with 16 GB"),
        ("T4", 1e5, ""),
        ("nobody's", 0, "2 x (1 CPU, 1 GPU); the kind of its GPUs is not known"),
    ],
)
def test_a_step_that_does_not_fit_the_gpus_is_refused_before_there_is_one(
    tmp_path: Path, model: str, offers: list[Offer], monkeypatch: pytest.MonkeyPatch,
    kind: str, num_bytes: float, said: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(gpu_kinds._BYTES, "T4", num_bytes)
    offers.append(Offer("trainer", {"CPU": 8.0, "GPU": 4.0}, {LABEL: kind}, 2))
    own = {"model_name_or_path": model, "max_length": 64, "max_tokens_per_micro_batch": 64}
    recipe = recipe_with(tmp_path, pretraining={**own, "objective": "pmp", "template": "plain"})
    if said:
        assert plan_of(recipe, "pretraining", []).startswith(said)
        return
    with pytest.raises(ResourceError, match=r"pretraining on 2 GPUs does not fit: a step holds"):
        plan_of(recipe, "pretraining", [])


@pytest.mark.parametrize("num_bytes", [16e9, 1.1e9])
def test_weights_that_do_not_fit_a_replica_are_refused(
    tmp_path: Path, model: str, offers: list[Offer], monkeypatch: pytest.MonkeyPatch,
    num_bytes: float,
) -> None:  # fmt: skip
    monkeypatch.setitem(gpu_kinds._BYTES, "T4", num_bytes)
    offers.append(Offer("server", {"CPU": 8.0, "GPU": 1.0}, {LABEL: "T4"}))
    recipe = recipe_with(
        tmp_path, finetuning={"model_name_or_path": model, "objective": "rm"},
        serving={"kv_cache_gb": 1.0999},
    )  # fmt: skip
    need = Need("Scoring", {"CPU": 1.0, "GPU": 1.0})
    if num_bytes > 2e9:
        assert "; weights of 0.0 GB on 1 x T4 with 16 GB" in plan_serving(recipe, [need], [])
        return
    with pytest.raises(ResourceError, match=r"A replica does not fit: .*kv_cache_gb=1\.0999"):
        plan_serving(recipe, [need], [])
