"""Commits -> pairs: which changes are of use, where they come from, and what purges find."""

import random
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import open_store
from codepmp_ray.synthesis.history.changes import plain_message, read_changes
from codepmp_ray.synthesis.history.pairs import beginning, plan_history, split_changes
from codepmp_ray.synthesis.history.syntax import same_syntax
from codepmp_ray.synthesis.purge import PurgeRequest, purge
from tests.unit.synthesis.git_repositories import commit, git, new_repository

Rows = list[dict[str, Any]]
MESSAGE = "Add the second number instead of the first one\n\nSigned-off-by: A Person <a@b.com>"
BEFORE = "def total(one, two):\n    # of both\n    result = one + one\n    return result\n"
AFTER = BEFORE.replace("one + one", "one + two")
OTHER = "def other(one):\n    if one:\n        return 2\n    return one\n"


def recipe_for(folder: Path, run_dir: Path, **corpus: Any) -> Recipe:
    source = {"kind": "folder", "path": str(folder), "repo": "owner/name", "license": "MIT"}
    source |= corpus.pop("source", {})
    return parse_recipe(
        {
            "run_dir": str(run_dir),
            "corpus": {"source": source} | corpus,
            "synthesis": {"construction": "commits", "gates": {"max_similarity": None},
                          "commits": {"commits_per_shard": 2}},
        },
        "test",
    )  # fmt: skip


def tables_of(recipe: Recipe) -> tuple[Rows, Rows]:
    history = plan_history(recipe, open_stage(recipe, "synthesis").store)
    found: tuple[Rows, Rows] = ([], [])
    for shard_id in range(len(history.shards)):
        changes = read_changes(history, shard_id).to_pylist()
        tables = split_changes(changes, recipe.synthesis)
        assert sum(table.num_rows for table in tables.values()) == len(changes)
        for rows, name in zip(found, ("pairs", "rejected"), strict=True):
            rows += tables[name].to_pylist()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = new_repository(tmp_path / "repository")
    commit(folder, "The first one, of which nothing is made", {"src/a.py": BEFORE + "\n\n" + OTHER})
    return folder


def newest(folder: Path, tmp_path: Path, **corpus: Any) -> tuple[Rows, Rows]:
    """What became of the newest commit."""
    oid = git(folder, "rev-parse", "HEAD")
    recipe = recipe_for(folder, tmp_path / "run", **corpus)
    pairs, rejected = tables_of(recipe)
    return tuple([row for row in rows if row["repo"].endswith(oid)] for rows in (pairs, rejected))


def test_the_version_after_is_chosen_with_the_provenance_of_both(
    folder: Path, tmp_path: Path
) -> None:
    before = git(folder, "rev-parse", "HEAD")
    after = commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER, "README": "of no use"})
    (pair,), rejected = newest(folder, tmp_path)
    assert not rejected
    assert pair["chosen"] == f"```python\n{AFTER.strip()}\n```"
    assert pair["rejected"] == f"```python\n{BEFORE.strip()}\n```"
    assert "Add the second number" in pair["prompt"] and "`total`" in pair["prompt"]
    assert "def total(one, two):\n    # of both\n```" in pair["prompt"]
    assert "Signed-off-by" not in pair["prompt"] and "a@b.com" not in str(pair)
    assert (pair["repo"], pair["rejected_repo"]) == (f"owner/name@{after}", f"owner/name@{before}")
    for oid, column in ((after, "blob_id"), (before, "rejected_blob_id")):
        assert pair[column] == git(folder, "rev-parse", f"{oid}:src/a.py")
    assert pair["path"] == pair["rejected_path"] == "src/a.py" and pair["license"] == "MIT"
    assert pair["source_id"] != pair["rejected_source_id"]


SECRET = 'AKIA' + "Q3EGRZXNV7LP2KDW"  # fmt: skip
CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "short": ("Fix it\n\nReviewed-by: Some Body With A Name <x@y.org>", {}, "message_too_short"),
    "revert": ('Revert "Add the second number instead"', {}, "revert_commit"),
    "reverts": ("Undo the last one\n\nThis reverts commit 0123456.", {}, "revert_commit"),
    "no code": ("Write what this is for", {"src/a.py": None, "R.md": "x"}, "no_changed_code"),
    "new file": ("Add another module for the sum", {"src/a.py": None, "src/b.py": AFTER},
                 "no_changed_code"),
    "renamed": ("Move the module to its place", {"src/a.py": None, "src/c.py": BEFORE},
                "no_changed_code"),
    "outside": ("Import what nobody asks for", {"src/a.py": "import os\n\n" + BEFORE},
                "no_changed_code"),
    "form": ("Format it with a tool", {"src/a.py": BEFORE.replace("one + one", "( one+one )")},
             "formatting_only"),
    "comment": ("Say in a comment what happens", {"src/a.py": BEFORE.replace("of both", "of all")},
                "formatting_only"),
    "broken": ("Leave the sum without an end", {"src/a.py": BEFORE.replace(")", "", 1)},
               "parse_error"),
    "secret": ("Log in with the right key now",
               {"src/a.py": BEFORE.replace("one + one", f"'{SECRET}'")}, "secret"),
    "twice": ("Define the sum once more below", {"src/a.py": BEFORE + "\n\n" + AFTER},
              "no_changed_code"),
    "binary": ("Put a zero byte into it", {"src/a.py": BEFORE.encode() + b"\0"}, "binary"),
    "long": ("Make the function much longer", {"src/a.py": BEFORE + "    result += 1\n" * 99},
             "too_long"),
    "vendored": ("Add the second number instead", {"third_party/a.py": AFTER}, "vendored"),
    "licence": ("Put it under another licence",
                {"src/a.py": f"# SPDX-License-Identifier: GPL-3.0\n{AFTER}"},
                "license_not_allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_of_no_use_is_counted(tmp_path: Path, name: str) -> None:
    message, files, reason = CHANGES[name]
    folder = new_repository(tmp_path / "repository")
    commit(folder, "The first one", {"src/a.py": BEFORE, "third_party/a.py": BEFORE})
    commit(folder, message, files or {"src/a.py": AFTER})
    pairs, rejected = newest(folder, tmp_path)
    assert not pairs and [row["reason"] for row in rejected] == [reason], rejected
    assert SECRET not in str(rejected)


def test_a_machine_s_commits_and_merges_are_counted(folder: Path, tmp_path: Path) -> None:
    for author in ("dependabot[bot] <49699333+dependabot@users.noreply.github.com>",
                   "release-bot <x@example.com>", "Renovate <bot@renovateapp.com>"):  # fmt: skip
        commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER}, author=author)
        pairs, rejected = newest(folder, tmp_path / author[:4])
        assert not pairs and rejected[0]["reason"] == "bot_commit"
        git(folder, "reset", "-q", "--hard", "HEAD~1")
    # Whose name only holds the letters is no machine.
    commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER}, author="T Abbot <t@abbot.org>")
    assert len(newest(folder, tmp_path / "abbot")[0]) == 1
    git(folder, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(folder, "Something else on the side", {"b.py": OTHER})
    git(folder, "merge", "-q", "-m", "Take the sum from the main line", "main")
    pairs, rejected = newest(folder, tmp_path / "merge")
    assert not pairs and [row["reason"] for row in rejected] == ["merge_commit"]


def test_commits_about_more_than_a_few_things_are_counted_once(
    folder: Path, tmp_path: Path
) -> None:
    names = [f"f{i}" for i in range(3)]
    old = "\n\n".join(BEFORE.replace("total", name) for name in names)
    new = old.replace("one + one", "one + two")
    commit(folder, "Begin with three functions here", {"many.py": old})
    commit(folder, "Change three functions at once", {"many.py": new})
    pairs, rejected = newest(folder, tmp_path)
    assert not pairs and [row["reason"] for row in rejected] == ["too_many_changes"]
    changed = old.replace("one + one", "one + two", 2)
    git(folder, "reset", "-q", "--hard", "HEAD~1")
    commit(folder, "Change two functions at once", {"many.py": changed})
    pairs, rejected = newest(folder, tmp_path / "two")
    assert {pair["path"] for pair in pairs} == {"many.py"} and len(pairs) == 2 and not rejected
    assert len({pair["pair_id"] for pair in pairs}) == 2
    assert len({pair["problem_id"] for pair in pairs}) == 1


def test_opt_outs_and_earlier_purges_hold_for_either_version(folder: Path, tmp_path: Path) -> None:
    before = git(folder, "rev-parse", "HEAD:src/a.py")
    commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER})
    for entry in (before, "owner/*", "https://github.com/owner/name", "owner/name:src/"):
        listed = tmp_path / "opted-out.txt"
        listed.write_text(entry)
        filters = {"opt_out_path": str(listed)}
        pairs, rejected = newest(folder, tmp_path / entry[:5].strip("/"), filters=filters)
        assert not pairs and [row["reason"] for row in rejected] == ["opted_out"], entry
    store = open_store(str(tmp_path / "run"))
    store.put("purges/1.json", b'{"names": ["OWNER/name"]}')
    assert newest(folder, tmp_path)[1][0]["reason"] == "opted_out"


def test_what_git_does_not_have_or_is_too_large_is_counted(folder: Path, tmp_path: Path) -> None:
    blob = git(folder, "rev-parse", "HEAD:src/a.py")
    commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER})
    limit = len(BEFORE + OTHER)  # without what stands between them
    (large,) = newest(folder, tmp_path / "large", max_file_bytes=limit)[1]
    assert (large["reason"], large["path"]) == ("too_large", "src/a.py")
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    (lost,) = newest(folder, tmp_path / "lost")[1]
    assert (lost["reason"], lost["detail"]) == ("unreadable", "git has no such blob")


def test_a_purge_finds_pairs_by_repository_path_and_either_blob(
    folder: Path, tmp_path: Path
) -> None:
    commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER})
    recipe = recipe_for(folder, tmp_path / "run")
    stage = open_stage(recipe, "synthesis")
    stage.start()
    history = plan_history(recipe, stage.store)
    changes = read_changes(history, 0).to_pylist()
    (pair,) = split_changes(changes, recipe.synthesis)["pairs"].to_pylist()
    stage.ledger.commit(0, len(changes), split_changes(changes, recipe.synthesis))
    stage.complete({"num_pairs": 1})
    for request in (
        PurgeRequest(repos=frozenset({"owner/name"})),
        PurgeRequest(paths=frozenset({"owner/name:src/a.py"})),
        PurgeRequest(blob_ids=frozenset({pair["rejected_blob_id"]})),
        PurgeRequest(source_ids=frozenset({pair["source_id"]})),
    ):
        assert request.match(pair), request
    record = purge(stage, PurgeRequest(blob_ids=frozenset({pair["rejected_blob_id"]})))
    assert record["num_pairs"] == 1 and stage.ledger.read("pairs").num_rows == 0


def test_a_resumed_stage_reads_the_commits_of_its_beginning(folder: Path, tmp_path: Path) -> None:
    commit(folder, MESSAGE, {"src/a.py": AFTER + "\n\n" + OTHER})
    recipe = recipe_for(folder, tmp_path / "run")
    store = open_stage(recipe, "synthesis").store
    first = plan_history(recipe, store)
    commit(folder, "Change the other function as well", {"src/a.py": AFTER})
    assert plan_history(recipe, store) == first
    assert len(plan_history(recipe, open_store(str(tmp_path / "anew"))).shards) == 2


def test_every_commit_of_a_history_ends_in_a_row(tmp_path: Path) -> None:
    folder = new_repository(tmp_path / "repository")
    draw, oids = random.Random(1), []
    for i in range(30):
        body = "".join(f"    x{j} = {draw.randrange(3)}\n" for j in range(draw.randrange(1, 6)))
        names = draw.sample(["a.py", "b.py", "c.go", "d"], draw.randrange(1, 4))
        message = draw.choice(["", "Change what x is here again", "Oops"])
        oids.append(commit(folder, f"{i} {message}", dict.fromkeys(names, f"def f():\n{body}")))
    pairs, rejected = tables_of(recipe_for(folder, tmp_path / "run"))
    assert pairs and {row["repo"].partition("@")[2] for row in pairs + rejected} == set(oids)
    ids = [row["snippet_id"] for row in pairs] + [row["row_id"] for row in rejected]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("language", "one", "other", "same"),
    [
        ("python", "def f(a):\n  return 'x'", 'def f( a, ):\n\n    return ("x")  # x', True),
        ("python", "def f(a):\n  return 'x'", "def f(a):\n  return 'y'", False),
        ("python", "if a:\n  b()\n  c()", "if a:\n  b()\nc()", False),
        ("go", "func f() int { return 1 }", "func f() int {\n\t// one\n\treturn 1\n}", True),
        ("go", "func f() int { return 1 }", "func f() int { return 2 }", False),
        ("javascript", "function f(a){return a+1}", "function f(a) {\n  return a + 1\n}", True),
        ("javascript", "function f(a){return a+1}", "function f(a){return a-1}", False),
        ("java", "int f() { if (a) { b(); } c(); }", "int f() { if (a) { b(); c(); } }", False),
    ],
)
def test_form_is_told_from_content(language: str, one: str, other: str, same: bool) -> None:
    assert same_syntax(one, other, language) is same


def test_words_about_a_change() -> None:
    assert beginning("a\nb\nc", "a\nb\nd") == "a\nb" and beginning("a1\nb", "a2\nb") == "a1"
    assert plain_message("One\n\nCo-authored-by: X <y>\nChange-Id: I1\n") == "One"
    assert plain_message("Two: keep\n\nBecause of this") == "Two: keep\n\nBecause of this"


def test_a_source_without_a_history_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"corpus\.source\.kind=folder"):
        parse_recipe({"synthesis": {"construction": "commits"}}, "test")
