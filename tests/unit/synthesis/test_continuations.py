"""Continuation pairs: both ways between two files, so that no answer tells its label."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.config.synthesis import ContinuationConfig, GatesConfig, SynthesisConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.records import REJECTED, table_from_rows
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.synthesis.continuations import break_in_two, split_continuations
from codepmp_ray.synthesis.purge import PurgeRequest, purge
from codepmp_ray.training.token_shards import is_held_out

CONFIG = SynthesisConfig(construction="continuation")
ANY_LENGTH = CONFIG.model_copy(update={"continuation": ContinuationConfig(max_length_ratio=100)})
WORDS = ("alpha", "beta", "gamma", "delta", "kappa")


def snippet(name: str, code: str, file: str = "", **changes: Any) -> dict[str, Any]:
    """One of `file`, by default a file of its own."""
    file = file or f"{name}.py"
    return {
        "snippet_id": name,
        "source_id": f"source of {file}",
        "blob_id": f"blob of {file}",
        "repo": f"owner/{file}",
        "path": file,
        "language": "python",
        "license": "MIT",
        "code": code,
    } | changes


def function(number: int, num_lines: int = 6, word: str = "value") -> str:
    body = [f"    {word}_{number}_{i} = {number * i}" for i in range(num_lines - 1)]
    return "\n".join([f"def f_{number}():", *body])


def split(
    rows: list[dict[str, Any]], config: SynthesisConfig = CONFIG
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    tables = split_continuations(rows, config)
    return tables["pairs"].to_pylist(), tables["rejected"].to_pylist()


SHARDS = st.lists(
    st.tuples(
        st.integers(1, 14),  # lines
        st.integers(0, 3),  # file
        st.sampled_from(("python", "go")),
        st.sampled_from(WORDS),
    ),
    max_size=24,
)


@settings(deadline=None)
@given(SHARDS)
def test_every_text_stands_once_on_each_side_and_every_snippet_in_one_table(shard) -> None:
    rows = [
        snippet(f"s{i}", function(i, lines, word), f"{file}.py", language=language)
        for i, (lines, file, language, word) in enumerate(shard)
    ]
    pairs, rejected = split(rows)
    ids = [pair["snippet_id"] for pair in pairs] + [row["row_id"] for row in rejected]
    assert sorted(ids) == sorted(row["snippet_id"] for row in rows)
    # A rule over the answer alone gives equal texts equal scores: it is right as often as wrong.
    assert Counter(pair["chosen"] for pair in pairs) == Counter(p["rejected"] for p in pairs)
    for rule in (len, lambda text: text.count("_"), hash):
        wins = sum(rule(pair["chosen"]) > rule(pair["rejected"]) for pair in pairs)
        losses = sum(rule(pair["chosen"]) < rule(pair["rejected"]) for pair in pairs)
        assert wins == losses
    for pair in pairs:
        assert (pair["repo"], pair["path"]) != (pair["rejected_repo"], pair["rejected_path"])
        lengths = sorted(len(pair[side]) for side in ("chosen", "rejected"))
        assert lengths[1] <= CONFIG.continuation.max_length_ratio * lengths[0]
    twosomes = Counter(pair["problem_id"] for pair in pairs)
    assert set(twosomes.values()) <= {2}


def test_the_prompt_is_the_beginning_and_the_chosen_side_its_own_rest() -> None:
    rows = [snippet("a", function(1)), snippet("b", function(2), license="Apache-2.0")]
    pairs, _ = split(rows, ANY_LENGTH)
    by_id = {pair["snippet_id"]: pair for pair in pairs}
    for row, other in (rows, rows[::-1]):
        pair = by_id[row["snippet_id"]]
        assert f"{pair['prompt']}\n{pair['chosen']}" == row["code"]
        assert other["code"].endswith(pair["rejected"]) and pair["prompt"].startswith("def f_")
        assert pair["rejected_source_id"] == other["source_id"]
        assert pair["license"] == "Apache-2.0 AND MIT"
        assert pair["strong_model"] is pair["weak_model"] is pair["margin"] is None


@settings(deadline=None)
@given(st.text("ab \n", max_size=60), st.integers(1, 4), st.text("xyz", min_size=1, max_size=4))
def test_a_break_leaves_enough_lines_on_both_sides(code: str, least: int, name: str) -> None:
    broken = break_in_two(snippet(name, code), ContinuationConfig(min_lines=least))
    num_written = sum(bool(line.strip()) for line in code.split("\n"))
    assert (broken is None) == (num_written < 2 * least)
    if broken is not None:
        parts = [[x for x in t.split("\n") if x.strip()] for t in (broken.beginning, broken.rest)]
        assert min(map(len, parts)) >= least
        assert f"{broken.beginning}\n{broken.rest}".split() == code.split()
        assert f"\n{broken.rest}" in f"\n{code}" and code.startswith(broken.beginning)


def test_the_break_is_drawn_by_the_id() -> None:
    code = function(1, 40)
    places = Counter(
        broken.beginning.count("\n")
        for i in range(400)
        if (broken := break_in_two(snippet(f"s{i}", code), CONFIG.continuation))
    )
    assert sorted(places) == list(range(1, 38))


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        ([snippet("a", function(1))], {"no_partner"}),
        ([snippet("a", "x = 1\ny = 2\nz = 3")], {"too_short"}),
        ([snippet("a", function(1), "f.py"), snippet("b", function(2), "f.py")], {"no_partner"}),
        # Nor is another version of a file.
        (
            [snippet("a", function(1), "f.py"), snippet("b", function(2), "f.py", source_id="2")],
            {"no_partner"},
        ),
        # A copy of a file under another name is that file.
        (
            [snippet("a", function(1)), snippet("b", function(2), source_id="source of a.py")],
            {"no_partner"},
        ),
        ([snippet("a", function(1)), snippet("b", function(2), language="go")], {"no_partner"}),
        # Equal beginnings would be answered both ways, equal rests not at all.
        ([snippet("a", "if x:\n  y\n  z = 1\n  u"), snippet("b", "if x:\n  y\n  v = 2\n  w")],
         {"no_partner"}),
        ([snippet("a", "if x:\n  y\n  z = 1\n  u"), snippet("b", "if q:\n  r\n  z = 1\n  u")],
         {"no_partner"}),
    ],
)  # fmt: skip
def test_who_has_no_partner_is_counted(rows: list[dict[str, Any]], reasons: set[str]) -> None:
    pairs, rejected = split(rows, ANY_LENGTH)
    assert not pairs and {row["reason"] for row in rejected} == reasons
    assert [row["row_id"] for row in rejected] == [row["snippet_id"] for row in rows]


def test_partners_are_near_in_length() -> None:
    rows = [snippet("a", function(1, 5)), snippet("b", function(2, 80))]
    assert len(split(rows, ANY_LENGTH)[0]) == 2 and not split(rows)[0]


def test_a_gate_takes_both_pairs_and_no_reject_holds_the_others_text() -> None:
    rows = [snippet("a", function(1, word="lonely")), snippet("b", function(2, word="single"))]
    strict = ANY_LENGTH.model_copy(update={"gates": GatesConfig(max_similarity=0.1)})
    pairs, rejected = split(rows, strict)
    assert not pairs and {row["reason"] for row in rejected} == {"sides_near_equal"}
    for row, other in zip(rejected, ("single", "lonely"), strict=True):
        assert other not in json.dumps(row)


def make_stage(tmp_path: Path) -> tuple[Stage, list[dict[str, Any]]]:
    recipe = parse_recipe(
        {"run_dir": str(tmp_path), "synthesis": {"construction": "continuation"}}, "test"
    )
    stage = open_stage(recipe, "synthesis")
    stage.start()
    rows = [snippet(f"s{i}", function(i), f"{i}.py") for i in range(10)]
    tables = split_continuations(rows, recipe.synthesis)
    stage.ledger.commit(0, len(rows), tables)
    stage.complete({"num_pairs": len(rows)})
    return stage, tables["pairs"].to_pylist()


@pytest.mark.parametrize("kind", ["repos", "paths", "source_ids", "blob_ids"])
def test_a_purge_of_either_file_takes_the_pair(tmp_path: Path, kind: str) -> None:
    stage, before = make_stage(tmp_path)
    one = before[0]
    name = {
        "repos": one["rejected_repo"],
        "paths": f"{one['rejected_repo']}:{one['rejected_path']}",
        "source_ids": one["rejected_source_id"],
        "blob_ids": one["rejected_blob_id"],
    }[kind]
    record = purge(stage, PurgeRequest(**{kind: frozenset({name})}))
    assert record["num_pairs"] == 2 and len(record["matched"]) == 1
    left = stage.ledger.read("pairs").to_pylist()
    assert left == [p for p in before if p["problem_id"] != one["problem_id"]]
    gone = [r for r in stage.ledger.read("rejected").to_pylist() if r["reason"] == "purged"]
    assert {row["row_id"] for row in gone} == {
        p["snippet_id"] for p in before if p["problem_id"] == one["problem_id"]
    }
    texts = b"".join(file.read_bytes() for file in tmp_path.rglob("*.parquet"))
    assert one["rejected"].encode() not in texts
    assert stage.ledger.read("rejected").schema == table_from_rows([], REJECTED).schema


def test_both_pairs_of_two_texts_are_held_out_together(tmp_path: Path) -> None:
    _, pairs = make_stage(tmp_path)
    for seed in range(20):
        config = TrainingConfig(objective="pmp", eval_fraction=0.5, seed=seed)
        sides = {(pair["problem_id"], is_held_out(pair, config)) for pair in pairs}
        assert len(sides) == len(pairs) // 2
