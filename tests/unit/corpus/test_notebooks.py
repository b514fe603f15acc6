"""Notebooks: cells as Python, each by itself; what is no notebook is said to be none."""

import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import extract_document
from codepmp_ray.corpus.notebooks import NotebookError, code_cells, extract_cells, join_cells

CORPUS = CorpusConfig(min_lines=2, languages=("python", "notebook"))


def notebook(*sources: object, **metadata: object) -> str:
    cells = [{"cell_type": "code", "source": source} for source in sources]
    text = {"cell_type": "markdown", "source": ["# title"]}
    return json.dumps({"cells": [text, *cells], "metadata": metadata, "nbformat": 4})


def rows(text: str | bytes, path: str = "a.ipynb") -> list[tuple[bool, dict]]:
    data = text.encode() if isinstance(text, str) else text
    return list(extract_document(Document("k", path, licenses=("MIT",), data=data), CORPUS))


def test_cells_give_definitions_or_themselves() -> None:
    text = notebook(
        ["%matplotlib inline\n", "import x\n", "def own():\n", "    return 1"],
        "a = 1\r\nb = 2\n",
        "one_line = 1",
        "not python (",
        "%%bash\nls\npwd",
    )
    found = extract_cells(code_cells(text), CORPUS)
    assert [(d.name, d.kind, d.start_line, d.end_line, d.reason) for d in found] == [
        ("own", "function", 3, 4, None),
        ("cell 2", "cell", 6, 7, None),
        ("cell 3", "cell", 9, 9, "too_short"),
        ("cell 4", "cell", 11, 11, "parse_error"),
        ("cell 5", "cell", 13, 15, None),
    ]
    joined = join_cells(code_cells(text))
    for definition in found:
        start, stop = definition.span
        assert joined.encode()[start:stop].decode() == definition.code
    produced = rows(text)
    assert [row["language"] for is_snippet, row in produced if is_snippet] == ["python"] * 2
    # The cell for bash is all comment now.
    assert produced[-1][1]["reason"] == "comment_ratio"
    assert len({row.get("snippet_id", row.get("row_id")) for _, row in produced}) == 5


def test_format_3_and_magics() -> None:
    cell = {"cell_type": "code", "input": "%%time\nx = !ls\n!pip install x\ny?"}
    text = json.dumps({"worksheets": [{"cells": [cell]}], "nbformat": 3})
    assert code_cells(text) == ["# %%time\nx = !ls\n# !pip install x\n# y?"]


def test_blank_lines_cost_linear_time() -> None:
    start_s = time.monotonic()
    (cell,) = code_cells(notebook("a" + "\n" * 200_000 + "!ls"))
    assert cell.endswith("\n# !ls") and time.monotonic() - start_s < 60


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "bad_notebook"),
        ("[" * 100_000, "bad_notebook"),
        ("[]", "bad_notebook"),
        ("{}", "bad_notebook"),
        ('{"cells": 3}', "bad_notebook"),
        ('{"cells": [3]}', "bad_notebook"),
        ('{"cells": [{"cell_type": "code", "source": [1]}]}', "bad_notebook"),
        ('{"cells": []}', "no_snippet"),
        (notebook("x", language_info={"name": "R"}), "unknown_language"),
        (notebook("def f():\n    return '\ud800'"), "not_utf8"),
    ],
)
def test_what_is_no_notebook_has_its_reason(text: str, reason: str) -> None:
    ((is_snippet, row),) = rows(text)
    assert not is_snippet
    assert row["reason"] == reason


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["cells", "cell_type", "source", "worksheets", "metadata"]), inner
            ),
        ),
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    with contextlib.suppress(NotebookError):
        assert isinstance(code_cells(json.dumps(value)), list)


def test_presets_of_columns_can_be_overridden() -> None:
    v1 = SourceConfig(kind="parquet", path="x", columns="stack_v1", path_column="p")
    assert (v1.license_column, v1.language_column) == ("max_stars_repo_licenses", "lang")
    assert (v1.path_column, v1.blob_id_column) == ("p", "hexsha")
    v2 = SourceConfig(kind="parquet", path="x", columns="stack_v2")
    assert (v2.license_column, v2.repo_column) == ("detected_licenses", "repo_name")
    assert (v2.language_column, v2.blob_id_column) == ("language", "blob_id")
    assert SourceConfig().license_column == "license"
