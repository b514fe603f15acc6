"""The corpus job on a real Ray cluster: bad input, change of source, SIGKILL in both rounds."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.storage import LocalStore
from tests.processes import PATIENCE_S, running, wait_until

ROOT = Path(__file__).resolve().parents[2]
NUM_FILES = 60
TABLES = ("snippets", "rejected")


def function(name: str) -> str:
    return f"def {name}(x):\n    y = x\n    z = y\n    return z\n"


def recipe_for(run_dir: Path, source: dict, **corpus: object) -> Recipe:
    data = {"run_dir": str(run_dir), "corpus": {"source": source, "files_per_task": 1, **corpus}}
    return parse_recipe(data, "test")


def folder(path: Path) -> dict:
    return {"kind": "folder", "path": str(path), "license": "MIT", "repo": "test/code"}


@pytest.fixture(scope="module")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files, each with one function of its own and one that all share; and bad ones."""
    root = tmp_path_factory.mktemp("corpus") / "code with space"
    root.mkdir()
    for i in range(NUM_FILES):
        (root / f"f{i:02d}.py").write_text(function(f"own_{i}") + "\n" + function("shared"))
    (root / "binary.py").write_bytes(b"\x7fELF\0\0")
    (root / "latin.py").write_bytes(b"# caf\xe9\n")
    (root / "empty.py").touch()
    (root / "broken.py").write_text("def f(:\n")
    (root / "gone.py").symlink_to(root / "nowhere")
    with open(root / "huge.py", "wb") as handle:
        handle.truncate(100 * 2**20)
    return root


def build(recipe: Recipe) -> dict:
    """`build_corpus`, with the error that a job would show."""
    from codepmp_ray.cluster.corpus import build_corpus
    from codepmp_ray.command.process import find_known_error

    try:
        return build_corpus(recipe)
    except Exception as error:
        raise find_known_error(error) or error from error


def rows(stage: Stage) -> dict[str, list[dict]]:
    return {table: stage.ledger.read(table).to_pylist() for table in TABLES}


def assert_nothing_half_written(stage: Stage) -> None:
    named = {name for commit in stage.ledger.commits() for name in commit.files.values()}
    found = {
        path.relative_to(Path(stage.uri)).as_posix()
        for table in TABLES
        for path in (Path(stage.uri) / table).rglob("*.parquet")
    }
    assert found == named
    for folder in ("extracted", "duplicates"):
        assert not [path for path in (Path(stage.uri) / folder).rglob("*") if path.is_file()]


def test_a_folder_with_bad_files(ray_cluster, code_folder: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path / "run dir", folder(code_folder), files_per_task=16)
    summary = build(recipe)
    stage = open_stage(recipe, "corpus")
    found = rows(stage)
    assert summary["num_snippets"] == len(found["snippets"]) == NUM_FILES + 1
    assert summary["num_files"] == NUM_FILES + 6
    assert summary["rejected"] == {
        "exact_duplicate": NUM_FILES - 1,
        "binary": 1,
        "not_utf8": 1,
        "empty": 1,
        "parse_error": 1,
        "unreadable": 1,
        "too_large": 1,
    }
    assert Counter(row["reason"] for row in found["rejected"]) == summary["rejected"]
    assert found["snippets"][0]["repo"] == "test/code"
    assert_nothing_half_written(stage)
    assert build(recipe) == summary  # complete: found, not made again


def test_a_later_corpus_leaves_out_what_an_earlier_one_kept(
    ray_cluster, code_folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(tmp_path / "first", folder(code_folder))
    summary = build(recipe)
    assert summary["contaminated"] == {"humaneval": 0}
    first = open_stage(recipe, "corpus")
    index = ShardLedger(first.store.sub("keep_index")).read("sketches")
    kept = first.ledger.read("snippets", ["snippet_id"])["snippet_id"].to_pylist()
    assert index["snippet_id"].to_pylist() == kept

    source = tmp_path / "more"
    source.mkdir()
    (source / "a.py").write_text(function("own_7"))
    (source / "b.py").write_text("def another(thing):\n    a = 1\n    b = 2\n    return a + b\n")
    (source / "c.py").write_text(function("truncate_number"))
    later = recipe_for(
        *(tmp_path / "later", folder(source)), near_duplicates={"earlier": [first.uri]}
    )
    summary = build(later)
    found = rows(open_stage(later, "corpus"))
    assert [row["path"] for row in found["snippets"]] == ["b.py"]
    assert {row["path"]: row["reason"] for row in found["rejected"]} == {
        "a.py": "near_duplicate",
        "c.py": "contaminated",
    }
    assert summary["contaminated"] == {"humaneval": 1}
    winner = found["rejected"][0]["detail"].split()[-1]
    assert winner in kept
    gone = recipe_for(
        *(tmp_path / "later", folder(source)), near_duplicates={"earlier": [str(tmp_path)]}
    )
    with pytest.raises(ConfigError, match="does not exist"):
        build(gone)


def test_samples_and_shards(ray_cluster, code_folder: Path, tmp_path: Path) -> None:
    settings = {"max_files": 40, "max_snippets": 11, "rows_per_shard": 4, "files_per_task": 7}
    recipe = recipe_for(tmp_path / "a", folder(code_folder), **settings)
    summary = build(recipe)
    found = rows(open_stage(recipe, "corpus"))
    assert (summary["num_files"], summary["num_files_not_sampled"]) == (40, NUM_FILES + 6 - 40)
    commits = open_stage(recipe, "corpus").ledger.commits()
    assert [commit.num_rows["snippets"] for commit in commits] == [4, 4, 3]
    reasons = summary["rejected"]
    assert (
        reasons["over_max_snippets"]
        == 40
        - sum(
            num
            for reason, num in reasons.items()
            if "_snippets" not in reason and "dup" not in reason
        )
        + 1
        - 11
    )
    again = recipe_for(tmp_path / "b", folder(code_folder), **{**settings, "files_per_task": 64})
    build(again)
    assert rows(open_stage(again, "corpus")) == found
    # Duplicates found over the cluster instead of by the job's own process.
    spread = {"max_rows_in_process": 0, "rows_per_chunk": 30, "rows_per_partition": 40}
    far = recipe_for(tmp_path / "c", folder(code_folder), **settings, deduplication=spread)
    build(far)
    assert rows(open_stage(far, "corpus")) == found
    assert_nothing_half_written(open_stage(far, "corpus"))
    sketches = [
        ShardLedger(open_stage(one, "corpus").store.sub("keep_index")).read("sketches")
        for one in (recipe, far)
    ]
    assert sketches[0].equals(sketches[1])


def test_rows_of_parquet_and_json_lines_with_damage(ray_cluster, tmp_path: Path) -> None:
    good = [{"content": function(f"f{i}"), "path": f"{i}.py", "license": "MIT"} for i in range(4)]
    shards = tmp_path / "shards"
    shards.mkdir()
    pq.write_table(pa.Table.from_pylist(good), shards / "a.parquet")
    (shards / "b.parquet").write_bytes((shards / "a.parquet").read_bytes()[:-100])
    lines = [json.dumps(good[0]), "{", json.dumps({"text": "x"})]
    (shards / "c.jsonl").write_text("\n".join(lines))
    parquet = recipe_for(tmp_path / "runs", {"kind": "parquet", "path": str(shards)})
    assert build(parquet)["num_snippets"] == 4
    assert build(parquet)["rejected"] == {"unreadable": 1}
    json_lines = recipe_for(tmp_path / "runs", {"kind": "jsonl", "path": str(shards)})
    assert build(json_lines)["num_snippets"] == 1
    assert build(json_lines)["rejected"] == {"unreadable": 2}


def test_sources_that_give_nothing(ray_cluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    recipe = recipe_for(tmp_path / "runs", folder(source))
    with pytest.raises(InputError, match="does not exist"):
        build(recipe)
    source.mkdir()
    with pytest.raises(InputError, match="holds no"):
        build(recipe)
    with pytest.raises(ConfigError, match="licence is not known"):
        build(recipe_for(tmp_path / "runs", {"kind": "folder", "path": str(source)}))
    assert not (tmp_path / "runs").exists()
    (source / "a.py").write_text("x = 1\n")
    with pytest.raises(InputError, match=r"no snippet; rejected: {'no_snippet': 1}"):
        build(recipe)
    assert not open_stage(recipe, "corpus").is_complete
    assert [row["path"] for row in rows(open_stage(recipe, "corpus"))["rejected"]] == ["a.py"]


def test_a_changed_source_is_never_stale(ray_cluster, tmp_path: Path, monkeypatch) -> None:
    import codepmp_ray.cluster.corpus as job

    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text(function("a"))
    recipe = recipe_for(source / "runs", folder(source))  # the run directory is not its own source
    build(recipe)
    assert build(recipe)["num_snippets"] == 1
    (source / "b.py").write_text(function("b"))
    with pytest.raises(InputError, match=r"changed since.*delete that folder"):
        build(recipe)

    during = recipe_for(tmp_path / "during", folder(source))
    write_shards = job._write_shards

    def change_and_write(*arguments) -> None:
        (source / "c.py").write_text(function("c"))
        write_shards(*arguments)

    monkeypatch.setattr(job, "_write_shards", change_and_write)
    with pytest.raises(InputError, match="changed since"):
        build(during)
    assert not open_stage(during, "corpus").is_complete


@pytest.mark.parametrize("gone", ["extracted", "plan.json", "_commits"])
def test_files_that_vanish_while_the_job_runs_are_missed(
    ray_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    from codepmp_ray.cluster import corpus as job

    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.py").write_text(function(f"f{i}"))
    recipe = recipe_for(tmp_path / "runs", folder(source), rows_per_shard=1)
    stage = open_stage(recipe, "corpus")
    run_tasks = job._run_tasks

    def run_and_remove(*arguments) -> None:
        run_tasks(*arguments)
        if gone == "extracted":
            (Path(stage.uri) / "extracted" / "_commits" / "00000" / "00000002.json").unlink()
        elif (Path(stage.uri) / gone).is_dir():
            shutil.rmtree(Path(stage.uri) / gone)
        else:
            (Path(stage.uri) / gone).unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(job, "_run_tasks", run_and_remove)
        with pytest.raises(StorageError, match="removed while the job ran"):
            build(recipe)
    assert not stage.is_complete
    assert build(recipe)["num_snippets"] == 4


def test_a_shard_that_was_taken_back_is_made_anew_and_no_other(ray_cluster, tmp_path: Path) -> None:
    from codepmp_ray.command.report import verify

    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.py").write_text(function(f"f{i}"))
    recipe = recipe_for(tmp_path / "runs", folder(source), rows_per_shard=1)
    build(recipe)
    ledger = open_stage(recipe, "corpus").ledger
    before, markers = ledger.read("snippets"), {c.shard_id: c for c in ledger.commits()}
    with open(ledger.store.locate(markers[2].files["snippets"]), "r+b") as file:
        file.truncate(200)
    with pytest.raises(StorageError, match="codepmp verify"):
        ledger.read("snippets")
    verify(recipe, repair=True)
    build(recipe)
    assert ledger.read("snippets") == before
    made = {c.shard_id for c in ledger.commits() if c != markers[c.shard_id]}
    assert made == {2} and verify(recipe)["damaged"] == []


def test_a_storage_error_in_a_worker_is_one_message_and_the_job_resumes(
    ray_cluster, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(6):
        (source / f"{i}.py").write_text(function(f"f{i}"))
    undisturbed = recipe_for(tmp_path / "undisturbed", folder(source))
    build(undisturbed)
    recipe = recipe_for(tmp_path / "runs", folder(source))
    stage = open_stage(recipe, "corpus")
    # Nothing can be written below a file, by root neither.
    obstacle = Path(stage.uri) / "extracted" / "rejected"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    with pytest.raises(StorageError, match=r"Cannot write .*rejected.* resumes where it stopped"):
        build(recipe)
    obstacle.unlink()
    build(recipe)
    assert rows(stage) == rows(open_stage(undisturbed, "corpus"))
    assert_nothing_half_written(stage)


def kill_once_committed(recipe: Recipe, ledger: ShardLedger, num: int, folder: Path) -> None:
    """Run the job as a user does and SIGKILL it when `ledger` has `num` markers."""
    config = folder / "recipe with space.yaml"
    config.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    command, log = ["-m", "jobs.corpus", "--config", str(config)], folder / "driver.log"

    def is_time() -> bool:
        return len(ledger.committed_ids()) >= num or driver.poll() is not None

    with running(*command, log=log) as driver:
        wait_until(is_time, log.read_text, 0.002)
    assert driver.returncode == -signal.SIGKILL, log.read_text()


@pytest.mark.rehearsal
def test_sigkill_in_both_rounds_changes_nothing(
    ray_cluster, code_folder: Path, tmp_path: Path
) -> None:
    settings = {"rows_per_shard": 1, "max_snippets": 50}
    undisturbed = recipe_for(tmp_path / "undisturbed", folder(code_folder), **settings)
    summary = build(undisturbed)
    expected = rows(open_stage(undisturbed, "corpus"))

    recipe = recipe_for(tmp_path / "killed", folder(code_folder), **settings)
    stage = open_stage(recipe, "corpus")
    extracted = ShardLedger(LocalStore(Path(stage.uri) / "extracted"))
    kill_once_committed(recipe, extracted, 3, tmp_path)
    assert 3 <= len(extracted.committed_ids()) < NUM_FILES + 6
    assert not stage.ledger.committed_ids()
    # Other work units now would mix up what is committed: the stored plan must win.
    recipe = recipe_for(tmp_path / "killed", folder(code_folder), **settings, files_per_task=8)
    kill_once_committed(recipe, stage.ledger, 3, tmp_path)
    assert 3 <= len(stage.ledger.committed_ids()) < 50
    assert not stage.is_complete

    resumed = build(recipe)
    assert rows(stage) == expected
    assert {**resumed, "duration_s": 0, "finished": ""} == {
        **summary,
        "duration_s": 0,
        "finished": "",
    }
    assert_nothing_half_written(stage)


def test_the_command_line(code_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text("name: empty\n")
    missing = [f"run_dir={tmp_path}/runs", "corpus.source.kind=folder", "corpus.source.path=/no"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jobs.corpus", "--config", str(config)),
            *(*missing, "corpus.source.license=MIT"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
    )
    assert done.returncode == InputError.exit_code
    assert done.stderr.startswith("Error: corpus.source.path=/no does not exist")
    assert len(done.stderr.splitlines()) == 1
