"""Purging finished pairs: exact, idempotent, and resumable wherever it is killed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray import shard_rewrite
from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import extract_document
from codepmp_ray.corpus.filters.opt_out import purged_names
from codepmp_ray.errors import InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import PAIR, REJECTED, SNIPPET, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.shard_rewrite import sole_writer
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.purge import PurgeRequest, purge, purge_run
from tests.unit.synthesis.kills import killed_at

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
REQUEST = PurgeRequest(repos=frozenset({"bad/repo"}), source_ids=frozenset({"file-2-1"}))
NUM_SHARDS, NUM_PAIRS = 4, 6
# Two for the request and its record, one for the counts, 5 for each of 3 shards changed.
NUM_WRITES = 18


def make_stage(tmp_path: Path) -> tuple[Recipe, Stage]:
    """Per shard 6 pairs and 2 rejected rows; every third row is of bad/repo, shard 3 has none."""
    recipe = parse_recipe({"run_dir": str(tmp_path / "run")}, "test")
    stage = open_stage(recipe, "synthesis")
    stage.start()
    for shard in range(NUM_SHARDS):
        pairs, rejected = [], []
        for i in range(NUM_PAIRS + 2):
            where = {
                "source_id": f"file-{shard}-{i}",
                "blob_id": f"blob-{shard}-{i}",
                "repo": "bad/repo" if i % 3 == 0 and shard < 3 else "good/repo",
                "path": "a.py",
            }
            if i < NUM_PAIRS:
                texts = dict.fromkeys(("prompt", "chosen", "rejected"), f"text of {shard}-{i}")
                pairs.append({"pair_id": f"p-{shard}-{i}", "snippet_id": f"{shard}-{i}"} | texts)
                pairs[-1] |= where
            else:
                why = {"stage": "synthesis", "reason": "chosen_cut_off", "payload": "a text"}
                rejected.append({"row_id": f"{shard}-{i}", **why, **where})
        tables = {
            "pairs": table_from_rows(pairs, PAIR),
            "rejected": table_from_rows(rejected, REJECTED),
        }
        stage.ledger.commit(shard, NUM_PAIRS + 2, tables)
    stage.complete({"num_pairs": NUM_SHARDS * NUM_PAIRS, "duration_s": 1.0})
    return recipe, stage


def rows(ledger: ShardLedger) -> dict[str, list[dict[str, Any]]]:
    return {name: ledger.read(name).to_pylist() for name in ("pairs", "rejected")}


def files(stage: Stage) -> list[str]:
    folders = [f"{name}/00000" for name in ("pairs", "rejected")]
    return [f"{name}/{file}" for name in folders for file in stage.store.list(name)]


def test_exactly_the_named_rows_leave_and_every_row_stays_accounted_for(tmp_path: Path) -> None:
    _, stage = make_stage(tmp_path)
    before = rows(stage.ledger)
    untouched = list(stage.ledger.commits())[3]
    record = purge(stage, REQUEST)
    after = rows(stage.ledger)
    assert after["pairs"] == [
        row
        for row in before["pairs"]
        if row["repo"] != "bad/repo" and row["source_id"] != "file-2-1"
    ]
    assert (record["num_pairs"], record["num_rejected"], record["num_shards"]) == (7, 3, 3)
    ids = [row["snippet_id"] for row in after["pairs"]]
    ids += [row["row_id"] for row in after["rejected"]]
    assert sorted(ids) == [f"{s}-{i}" for s in range(NUM_SHARDS) for i in range(NUM_PAIRS + 2)]
    gone = [row for row in after["rejected"] if row["reason"] == "purged"]
    assert {row["row_id"] for row in gone} == {"2-1"} | {
        f"{shard}-{i}" for shard in range(3) for i in (0, 3, 6)
    }
    assert len(gone) == 10 and all(row["payload"] is row["path"] is None for row in gone)
    assert {row["detail"].split(": ")[1] for row in gone} == {"was a pair", "was chosen_cut_off"}
    assert list(stage.ledger.commits())[3] == untouched
    assert stage.summary()["num_pairs"] == len(after["pairs"]) and stage.is_complete
    named = [file for commit in stage.ledger.commits() for file in commit.files.values()]
    assert sorted(files(stage)) == sorted(named)
    purged_text = b"text of 0-0"
    assert not any(purged_text in p.read_bytes() for p in Path(stage.uri).rglob("*") if p.is_file())


def test_twice_is_once(tmp_path: Path) -> None:
    _, stage = make_stage(tmp_path)
    record = purge(stage, REQUEST)
    commits = list(stage.ledger.commits())
    assert purge(stage, REQUEST) == record and list(stage.ledger.commits()) == commits
    other = purge(stage, PurgeRequest(repos=frozenset({"bad/repo", "no/such"})))
    assert (other["num_pairs"], other["num_rejected"]) == (0, 0)


@pytest.mark.parametrize(
    ("request_", "row_ids"),
    [
        (PurgeRequest(blob_ids=frozenset({"blob-3-7", "blob-0-1"})), {"3-7", "0-1"}),
        (
            PurgeRequest(paths=frozenset({"bad/repo:a.py"})),
            {f"{s}-{i}" for s in (0, 1, 2) for i in (0, 3, 6)},
        ),
        (PurgeRequest(paths=frozenset({"a.py", ":a.py", "bad/repo:b.py"})), set()),
    ],
)
def test_files_are_named_by_blob_and_by_path(
    tmp_path: Path, request_: PurgeRequest, row_ids: set[str]
) -> None:
    _, stage = make_stage(tmp_path)
    record = purge(stage, request_)
    gone = [row for row in rows(stage.ledger)["rejected"] if row["reason"] == "purged"]
    assert {row["row_id"] for row in gone} == row_ids
    assert record["num_pairs"] + record["num_rejected"] == len(row_ids)
    assert record["blob_ids"] == sorted(request_.blob_ids)
    assert all(row["blob_id"] == f"blob-{row['row_id']}" for row in gone)


def test_every_way_of_naming_is_a_request_of_its_own() -> None:
    names = frozenset({"x"})
    requests = [
        PurgeRequest(**{name: names}) for name in ("repos", "source_ids", "blob_ids", "paths")
    ]
    assert len({request.purge_id for request in requests}) == 4


def test_the_lock_is_taken_before_the_question_for_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stage = make_stage(tmp_path)

    def begin_a_replay(_: Stage) -> None:
        with pytest.raises(StorageError, match="Another process"), sole_writer(stage.ledger):
            pass

    monkeypatch.setattr("codepmp_ray.synthesis.purge.unfinished_round", begin_a_replay)
    assert purge(stage, REQUEST)["num_pairs"] == 7


@pytest.mark.parametrize("step", range(1, NUM_WRITES + 1))
def test_killed_after_any_write_the_same_command_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    _, stage = make_stage(tmp_path)
    (tmp_path / "two").mkdir()
    _, untouched = make_stage(tmp_path / "two")
    record = purge(untouched, REQUEST)
    with killed_at(monkeypatch, step, ("put", "put_exclusive", "delete")):
        purge(stage, REQUEST)
    resumed = purge(stage, REQUEST)
    assert {**resumed, "requested": ""} == {**record, "requested": ""}
    assert rows(stage.ledger) == rows(untouched.ledger)
    named = [file for commit in stage.ledger.commits() for file in commit.files.values()]
    assert sorted(files(stage)) == sorted(named)


def test_an_unfinished_stage_and_a_second_writer_are_refused(tmp_path: Path) -> None:
    recipe, stage = make_stage(tmp_path)
    with (
        sole_writer(stage.ledger),
        pytest.raises(StorageError, match="Another process"),
    ):
        purge(stage, REQUEST)
    stage.store.delete("complete.json")
    with pytest.raises(InputError, match="not complete"):
        purge(open_stage(recipe, "synthesis"), REQUEST)


def test_a_rewrite_that_loses_a_row_is_refused(tmp_path: Path) -> None:
    _, stage = make_stage(tmp_path)
    commit = next(stage.ledger.commits())
    before = rows(stage.ledger)
    with pytest.raises(StorageError, match="8 rows went in, 0 came out"):
        shard_rewrite.replace_shard(
            stage.ledger, commit, {"pairs": PAIR.empty_table(), "rejected": REJECTED.empty_table()}
        )
    assert rows(stage.ledger) == before


def test_the_command_prints_counts_and_reads_lists(tmp_path: Path) -> None:
    recipe, stage = make_stage(tmp_path)
    listed = tmp_path / "opted out.txt"
    listed.write_bytes("\ufeffbad/repo  # asked in March\n\n# opt-outs\n".encode())
    command = [sys.executable, "-m", "jobs.purge", f"run_dir={recipe.run_dir}"]
    config = tmp_path / "recipe.yaml"
    config.write_text(json.dumps({}))
    stage.store.put("diversity.json", b"names of purged repositories")
    command += ["--config", str(config), "--repo-file", str(listed), "--source-id", "file-2-1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        f"purge {REQUEST.purge_id}: 7 pairs and 3 rejected rows purged in 3 shards" in done.stdout
    )
    assert not stage.store.exists("diversity.json")
    assert "`purged` | 10" in (Path(stage.uri) / "README.md").read_text()
    empty = subprocess.run([*command[:6]], cwd=ROOT, capture_output=True, text=True)
    assert empty.returncode == 2 and "Nothing to purge" in empty.stderr
    lost = subprocess.run(
        [*command[:6], "--path", "a.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert lost.returncode == 2 and "'a.py' names no repository" in lost.stderr


def make_corpus(recipe: Recipe) -> Stage:
    """Two shards of three snippets and a rejected row; each first snippet is of bad/repo."""
    stage = open_stage(recipe, "corpus")
    stage.start()
    for shard in range(2):
        snippets = [
            {
                "snippet_id": f"s-{shard}-{i}",
                "source_id": f"file-{shard}-{i}",
                "blob_id": f"{shard}{i}" * 20,
                "repo": "bad/repo@1.0" if i == 0 else "good/repo",
                "path": "src/A.py",
                "code": f"the code of {shard}-{i}",
                "language": "python",
                "license": "MIT",
                "kind": "function",
            }
            for i in range(3)
        ]
        rejected = [{"row_id": f"r-{shard}", "stage": "corpus", "reason": "too_short",
                     "detail": "", "repo": "bad/repo", "path": "src/b.py"}]  # fmt: skip
        tables = {
            "snippets": table_from_rows(snippets, SNIPPET),
            "rejected": table_from_rows(rejected, REJECTED),
        }
        stage.ledger.commit(shard, 4, tables)
    stage.complete({"num_snippets": 6, "num_rejected": 2, "contaminated": {"humaneval": 0}})
    return stage


def texts_below(folder: str | Path) -> bytes:
    return b"".join(p.read_bytes() for p in Path(folder).rglob("*") if p.is_file())


SPELLINGS = [
    "bad/repo",
    "Bad/Repo",
    "bad/repo@1.0",
    "https://github.com/bad/repo",
    "git@github.com:bad/repo.git",
    "github.com/bad/repo/",
    "https://github.com/bad/repo/issues",
    "bad/*",
]


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_name_reaches_every_stage(tmp_path: Path, name: str) -> None:
    recipe, synthesis = make_stage(tmp_path)
    corpus = make_corpus(recipe)
    tokens = Path(recipe.run_dir) / f"pretraining-{'a' * 12}" / "tokens"
    tokens.mkdir(parents=True)
    (tokens / "x.arrow").write_bytes(b"what pairs were made into")
    told: list[tuple[str, dict]] = []
    request = PurgeRequest(repos=frozenset({name}))
    purge_run(recipe, request, lambda stage, record: told.append((stage.name, record)))
    records = dict(told)
    assert records["corpus"]["num_snippets"] == 2
    assert records["synthesis"]["num_pairs"] == (0 if "@" in name and ":" not in name else 6)
    assert b"the code of 0-0" not in texts_below(corpus.uri) and not tokens.exists()
    assert b"the code of 0-1" in texts_below(corpus.uri)
    summary = corpus.summary()
    assert (summary["num_snippets"], summary["kinds"]) == (4, {"function": 4})
    assert sum(summary["rejected"].values()) == 4
    # And again: nothing changes, and the names are still known to have matched.
    before = texts_below(corpus.uri)
    purge_run(recipe, request, lambda stage, record: None)
    assert texts_below(corpus.uri) == before
    assert synthesis.is_complete


def test_names_that_match_nothing_are_named_at_the_end(tmp_path: Path) -> None:
    recipe, stage = make_stage(tmp_path)
    request = PurgeRequest(
        repos=frozenset({"bad/repo", "no/such"}), paths=frozenset({"good/repo:other.py"})
    )
    for _ in range(2):
        with pytest.raises(InputError, match=r"2 of its 3 names match no row: .*no/such"):
            purge_run(recipe, request, lambda stage, record: None)
    assert "bad/repo" not in {row["repo"] for row in rows(stage.ledger)["pairs"]}


def test_a_stage_that_is_not_finished_is_refused_before_anything_changes(tmp_path: Path) -> None:
    recipe, stage = make_stage(tmp_path)
    make_corpus(recipe).store.delete("complete.json")
    before = texts_below(stage.uri)
    with pytest.raises(InputError, match=r"corpus-\w+ is not finished"):
        purge_run(recipe, REQUEST, lambda stage, record: None)
    assert texts_below(stage.uri) == before


def test_later_stages_of_the_run_leave_purged_names_out(tmp_path: Path) -> None:
    recipe, _ = make_stage(tmp_path)
    make_corpus(recipe)
    purge_run(recipe, PurgeRequest(repos=frozenset({"bad/repo"})), lambda stage, record: None)
    purged = purged_names(open_store(recipe.run_dir))
    data = b"def good(x):\n    y = x\n    z = y\n    return z\n"
    for repo, is_out in (("Bad/repo@2.0", True), ("good/repo", False)):
        document = Document("k", "a.py", repo=repo, licenses=("MIT",), data=data)
        ((is_snippet, row),) = extract_document(document, recipe.corpus, purged)
        assert is_snippet != is_out and (not is_out or row["reason"] == "opted_out")
