"""The synthesis graph on a real Ray cluster with a fake engine: shards, resume, SIGKILL."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from codepmp_ray.cluster.limits import RejectFuse
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.config.synthesis import PlanningConfig
from codepmp_ray.errors import (
    ConfigError,
    EngineError,
    LimitReached,
    ModelError,
    ResourceError,
    StorageError,
)
from codepmp_ray.records import PAIR, PAIR_OF_TWO_FILES, REJECTED, SNIPPET, table_from_rows
from codepmp_ray.runs import open_stage
from tests.processes import PATIENCE_S, running, wait_until
from tests.unit.synthesis.git_repositories import commit, new_repository

ROOT = Path(__file__).resolve().parents[2]
SIZES = [5, 0, 7, 1, 6]  # rows per shard; one shard is empty


def recipe_for(run_dir: Path, latency_s: float = 0.0, **strong: object) -> Recipe:
    engine: dict = {"kind": "fake", "engine_args": {"latency_s": latency_s}, "num_cpus": 0.5}
    return parse_recipe(
        {
            "run_dir": str(run_dir),
            "engines": {
                "strong": {**engine, "model_name_or_path": "fake-strong", **strong},
                "weak": {**engine, "model_name_or_path": "fake-weak"},
            },
        },
        "test",
    )


def write_corpus(recipe: Recipe) -> list[str]:
    stage = open_stage(recipe, "corpus")
    stage.start()
    names = []
    for shard_id, size in enumerate(SIZES):
        rows = [
            {"snippet_id": f"{shard_id}-{i}", "code": f"x = {shard_id}.{i}", "language": "python"}
            for i in range(size)
        ]
        names += [row["snippet_id"] for row in rows]
        tables = {
            "snippets": table_from_rows(rows, SNIPPET),
            "rejected": table_from_rows([], REJECTED),
        }
        stage.ledger.commit(shard_id, size, tables)
    stage.complete({"num_snippets": len(names)})
    return names


def snippet_ids(recipe: Recipe) -> list[str]:
    ledger = open_stage(recipe, "synthesis").ledger
    pairs, rejected = ledger.read("pairs"), ledger.read("rejected")
    ids = pairs.column("snippet_id").to_pylist() if pairs.num_columns else []
    return ids + (rejected.column("row_id").to_pylist() if rejected.num_columns else [])


def scraped(label: str) -> dict[str, float]:
    """Sums of our metrics as Prometheus reads them now."""
    import ray

    url = "http://{NodeManagerAddress}:{MetricsExportPort}/metrics".format(**ray.nodes()[0])
    sums: dict[str, float] = {}
    for line in httpx.get(url, timeout=PATIENCE_S).text.splitlines():
        if line.startswith("ray_codepmp_") and label in line:
            name = line.split("{")[0].removeprefix("ray_")
            sums[name] = sums.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return sums


@contextmanager
def scraping(label: str) -> Iterator[dict[str, float]]:
    """The last value of each of our metrics while the block runs, scraped beside it."""
    last: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            last.update(scraped(label))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield last
    finally:
        ended.set()
        thread.join()


def test_every_snippet_becomes_one_row_with_two_pools(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = recipe_for(tmp_path / "with space", latency_s=0.5)
    names = write_corpus(recipe)
    with scraping('stage="synthesis"') as samples:
        summary = synthesize(recipe)
        give_up_s = time.monotonic() + PATIENCE_S
        while samples.get("codepmp_rows_total") != len(names) and time.monotonic() < give_up_s:
            time.sleep(0.2)
    assert summary["num_pairs"] == len(names) == summary["num_snippets"]
    assert sorted(snippet_ids(recipe)) == sorted(names)
    stage = open_stage(recipe, "synthesis")
    assert stage.ledger.committed_ids() == set(range(len(SIZES)))
    assert "fake-strong" in (Path(stage.uri) / "README.md").read_text()
    assert synthesize(recipe) == summary  # a second run finds the work done
    assert samples["codepmp_rows_total"] == len(names)
    assert samples["codepmp_shards_total"] == len(SIZES) - 1  # the empty one has no rows to commit
    assert "codepmp_rows_with_engine" in samples


def test_a_storage_error_in_a_worker_is_one_message_and_the_job_resumes(
    ray_cluster, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.synthesis import synthesize
    from codepmp_ray.command.process import find_known_error

    recipe = recipe_for(tmp_path)
    names = write_corpus(recipe)
    stage = open_stage(recipe, "synthesis")
    Path(stage.uri).mkdir()
    obstacle = Path(stage.uri) / "rejected"  # nothing can be written below a file, by root neither
    obstacle.touch()
    with pytest.raises(Exception) as caught:
        synthesize(recipe)
    told = find_known_error(caught.value)
    assert isinstance(told, StorageError) and f"{obstacle}/00000" in str(told)
    obstacle.unlink()
    assert synthesize(recipe)["num_pairs"] == len(names)
    assert sorted(snippet_ids(recipe)) == sorted(names)


def test_web_pairs_need_neither_engines_nor_a_corpus(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    answers = [{"text": "Use a lock around it.", "pm_score": 9}, {"text": "No idea", "pm_score": 1}]
    lines = [json.dumps({"qid": i, "question": f"How? {i}", "answers": answers}) for i in range(5)]
    (tmp_path / "threads.jsonl").write_text("\n".join([*lines, "{"]))
    threads = {"path": str(tmp_path / "threads.jsonl"), "rows_per_shard": 2}
    data = recipe_for(tmp_path).model_dump(mode="json")
    data["synthesis"] |= {"construction": "web_pairs", "threads": threads}
    recipe = parse_recipe(data, "test")
    summary = synthesize(recipe)
    assert (summary["num_pairs"], summary["num_shards"]) == (5, 3)
    assert summary["rejected_by_reason"] == {"unreadable": 1}
    card = (Path(open_stage(recipe, "synthesis").uri) / "README.md").read_text()
    assert "People wrote both sides" in card and "Lengths in characters" in card
    assert "Demonstration" not in card


def test_a_job_of_rejects_ends_with_examples_and_goes_on_where_that_is_allowed(
    ray_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codepmp_ray.cluster import synthesis as job

    data = recipe_for(tmp_path).model_dump(mode="json")
    data["synthesis"]["gates"]["min_description_words"] = 100
    recipe = parse_recipe(data, "test")
    names = write_corpus(recipe)
    monkeypatch.setattr(job, "RejectFuse", partial(RejectFuse, min_rows=6))
    with pytest.raises(LimitReached, match=r"rows were rejected, more than .*=0\.99") as caught:
        job.synthesize(recipe)
    assert any(f"{name}: " in str(caught.value) for name in names)
    stage = open_stage(recipe, "synthesis")
    assert stage.ledger.committed_ids() and not stage.is_complete
    data["planning"]["max_reject_share"] = 1.0
    summary = job.synthesize(parse_recipe(data, "test"))
    assert summary["num_pairs"] == 0 and sorted(snippet_ids(recipe)) == sorted(names)
    assert summary["cost"] == {"gpu_seconds": 0, "price": None, "attempts": []}


def test_continuations_need_a_corpus_and_no_engine(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.pilot import run_pilot
    from codepmp_ray.cluster.replay import replay
    from codepmp_ray.cluster.synthesis import synthesize

    data = recipe_for(tmp_path).model_dump(mode="json")
    data["synthesis"] |= {"construction": "continuation"}
    recipe = parse_recipe(data, "test")
    corpus = open_stage(recipe, "corpus")
    corpus.start()
    for shard_id, size in enumerate(SIZES):
        rows = [
            {
                **{name: f"{name} {shard_id} {i}" for name in ("repo", "path", "source_id")},
                "snippet_id": f"{shard_id}-{i}",
                "code": "\n".join(f"name_{shard_id}_{i}_{line} = {line}" for line in range(4)),
                "language": "python",
                "license": "MIT",
            }
            for i in range(size)
        ]
        tables = {"snippets": table_from_rows(rows, SNIPPET), "rejected": REJECTED.empty_table()}
        corpus.ledger.commit(shard_id, size, tables)
    corpus.complete({"num_snippets": sum(SIZES)})
    summary = synthesize(recipe)
    odd = sum(size % 2 for size in SIZES)
    assert (summary["num_pairs"], summary["num_shards"]) == (sum(SIZES) - odd, len(SIZES))
    assert summary["rejected_by_reason"] == {"no_partner": odd}
    stage = open_stage(recipe, "synthesis")
    assert stage.ledger.read("pairs").schema == PAIR_OF_TWO_FILES
    card = (Path(stage.uri) / "README.md").read_text()
    assert "the rest of a snippet of another file" in card and "a model described" not in card
    with pytest.raises(ConfigError, match="continuation asks no model"):
        replay(recipe, ("no_partner",))
    with pytest.raises(ConfigError, match="continuation asks no model"):
        run_pilot(recipe)


def test_commits_need_neither_engines_nor_a_corpus(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    folder = new_repository(tmp_path / "repository")
    code = "def f(x):\n    y = {}\n    z = y + x\n    return z\n"
    for number in range(5):
        commit(folder, f"Let y be the number {number}", {"a.py": code.format(number)})
    data = recipe_for(tmp_path / "run").model_dump(mode="json")
    data["corpus"]["source"] = {"kind": "folder", "path": str(folder), "license": "MIT"}
    data["synthesis"] |= {"construction": "commits", "commits": {"commits_per_shard": 2}}
    data["synthesis"]["gates"]["max_similarity"] = None
    recipe = parse_recipe(data, "test")
    summary = synthesize(recipe)
    assert (summary["num_pairs"], summary["num_shards"]) == (4, 3)
    assert summary["rejected_by_reason"] == {"no_changed_code": 1}
    card = (Path(open_stage(recipe, "synthesis").uri) / "README.md").read_text()
    assert "the message of a commit" in card and "a model described" not in card


def test_replay_takes_up_the_named_rejects_only(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.replay import replay

    recipe = recipe_for(tmp_path)
    names = write_corpus(recipe)
    stage = open_stage(recipe, "synthesis")
    stage.start()
    for shard_id, size in enumerate(SIZES):
        rows = [
            {"row_id": f"{shard_id}-{i}", "reason": "engine_error" if i % 2 else "chosen_cut_off"}
            for i in range(size)
        ]
        tables = {"pairs": PAIR.empty_table(), "rejected": table_from_rows(rows, REJECTED)}
        stage.ledger.commit(shard_id, size, tables)
    stage.complete({"num_pairs": 0})
    with pytest.raises(ConfigError, match="'purged'"):
        replay(recipe, ("purged",))
    record = replay(recipe, ("engine_error",))
    wanted = sorted(name for name in names if int(name.split("-")[1]) % 2)
    pairs = stage.ledger.read("pairs")
    assert sorted(pairs.column("snippet_id").to_pylist()) == wanted
    assert sorted(snippet_ids(recipe)) == sorted(names)
    assert (record["num_rows"], record["num_pairs"]) == (len(wanted), len(wanted))
    assert stage.summary()["num_pairs"] == len(wanted)


def test_a_plan_that_never_fits_is_refused_with_numbers(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = recipe_for(tmp_path, num_cpus=1000)
    write_corpus(recipe)
    with pytest.raises(ResourceError, match=r"needs 1000 CPU on one node.*has \d+"):
        synthesize(recipe)


def test_a_model_path_that_does_not_exist_is_refused_before_anything_starts(
    ray_cluster, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = recipe_for(tmp_path, kind="vllm", model_name_or_path="/no/such/model")
    write_corpus(recipe)
    with pytest.raises(ModelError, match="/no/such/model"):
        synthesize(recipe)
    assert not Path(open_stage(recipe, "synthesis").uri).exists()


@pytest.mark.rehearsal
def test_a_pilot_measures_each_pool_and_keeps_nothing(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.pilot import run_pilot

    recipe = recipe_for(tmp_path, latency_s=0.2)
    recipe = recipe.model_copy(update={"planning": PlanningConfig(pilot_rows=12)})
    write_corpus(recipe)
    pilot = run_pilot(recipe)
    assert pilot.num_rows == 12 and pilot.yield_share == 1.0
    strong, weak = pilot.rates
    # The strong engine takes a row through two hops of 0.2 s, the weak one through one.
    assert (strong.name, weak.name) == ("strong", "weak")
    assert 0 < strong.rows_per_s <= 12 / 0.4 and 0 < weak.rows_per_s <= 12 / 0.2
    assert strong.tokens_per_s == pytest.approx(strong.rows_per_s * 32)
    assert weak.tokens_per_s == pytest.approx(weak.rows_per_s * 16)
    assert pilot.num_engines == {"strong": 1, "weak": 1}
    assert pilot.rows_per_s == min(strong.rows_per_s, weak.rows_per_s)
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert names == ["corpus", "plan"]  # the prediction


def test_a_plan_for_gpus_is_refused_where_only_cpus_can_be_measured(
    ray_cluster, tmp_path: Path
) -> None:
    from codepmp_ray.command.pairs import plan

    recipe = recipe_for(tmp_path)
    recipe = recipe.model_copy(update={"planning": PlanningConfig(num_gpus=8)})
    write_corpus(recipe)
    with pytest.raises(ResourceError, match=r"num_gpus=8, but this cluster has no GPU"):
        plan(recipe)


def test_a_row_that_kills_its_engine_is_found_and_rejected(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = recipe_for(tmp_path, engine_args={"die_on": "x = 2.3"}, crash_patience=1)
    names = write_corpus(recipe)
    summary = synthesize(recipe)
    stage = open_stage(recipe, "synthesis")
    rejected = stage.ledger.read("rejected").to_pylist()
    assert [(row["row_id"], row["reason"]) for row in rejected] == [("2-3", "engine_crash")]
    assert "killed its engine" in rejected[0]["detail"]
    assert sorted(snippet_ids(recipe)) == sorted(names)
    assert summary["rejected_by_reason"] == {"engine_crash": 1}
    assert not stage.store.list("_crashes")


def test_an_engine_that_always_dies_ends_the_job_with_a_message(
    ray_cluster, tmp_path: Path
) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = recipe_for(tmp_path, engine_args={"die_on": "x = "}, max_crashes=2)
    write_corpus(recipe)
    with pytest.raises(EngineError, match=r"died 3 times.*max_crashes=2.*of 5 shards"):
        synthesize(recipe)
    assert not open_stage(recipe, "synthesis").is_complete


def test_an_error_in_an_engines_constructor_is_told_from_a_crash() -> None:
    """Ray hands over the constructor's traceback as text."""
    from ray.exceptions import RayActorError

    from codepmp_ray.cluster.shard_graph import _explain

    text = (
        "The actor died because of an error raised in its creation task, ray::MapWorker()\n"
        "OSError: no file named model.safetensors\n"
        "    raise ModelError(\n"
        "codepmp_ray.errors.ModelError: vLLM cannot start x: no file. Check the model name.\n"
    )
    named = _explain(RayActorError(error_msg=text), "synthesis", 7, "0 of 5 shards")
    assert isinstance(named, ModelError) and str(named).startswith("vLLM cannot start x")
    crash = _explain(RayActorError(), "synthesis", 7, "3 of 5 shards")
    assert isinstance(crash, EngineError) and "max_crashes=7" in str(crash)
    assert "3 of 5 shards are done" in str(crash)


def test_killed_driver_resumes_with_every_snippet_once(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.cluster.synthesis import synthesize

    recipe = recipe_for(tmp_path, latency_s=0.5)
    names = write_corpus(recipe)
    code = (
        "from codepmp_ray.cluster.connect import connect\n"
        "from codepmp_ray.cluster.synthesis import synthesize\n"
        "from codepmp_ray.config.recipe import Recipe\n"
        f"recipe = Recipe.model_validate_json({recipe.model_dump_json()!r})\n"
        "with connect():\n    synthesize(recipe)\n"
    )
    ledger, log = open_stage(recipe, "synthesis").ledger, tmp_path / "driver.log"
    with running("-c", code, log=log) as driver:
        wait_until(lambda: ledger.committed_ids() or driver.poll() is not None, log.read_text)
        assert driver.poll() is None, log.read_text()
    summary = synthesize(recipe)
    assert sorted(snippet_ids(recipe)) == sorted(names)
    assert summary["num_snippets"] == len(names)
