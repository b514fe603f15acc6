"""Notebooks: cells as Python, each by itself; what is no notebook is said to be none."""

import contextlib
import json
import time
from dataclasses import replace

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
        ("cell 5", "cell", 13, 15, "unknown_language"),
    ]
    joined = join_cells(code_cells(text))
    for definition in found:
        start, stop = definition.span
        assert joined.encode()[start:stop].decode() == definition.code
    produced = rows(text)
    assert [row["language"] for is_snippet, row in produced if is_snippet] == ["python"] * 2
    assert produced[-1][1]["detail"] == "cell 5 is for bash"
    assert len({row.get("snippet_id", row.get("row_id")) for _, row in produced}) == 5


def test_format_3_and_magics() -> None:
    cell = {"cell_type": "code", "input": "%%time\nx = !ls\n!pip install x\ny?"}
    text = json.dumps({"worksheets": [{"cells": [cell]}], "nbformat": 3})
    (found,) = code_cells(text)
    assert found.code == "# %%time\nx = get_ipython().getoutput('ls')\n# !pip install x\n# y?"


PLAIN = [
    'check = ("a %s"\n         % (x, y))',
    "c = (a\n% b)",
    'text = """\n%d items\n!important\nwhat?\n"""',
    "x = f(\n    1\n)  # why?\ny = a if b else c",
    "total = a \\\n    % b",
]
MAGIC = [
    ("%matplotlib inline\nx = 1", "# %matplotlib inline\nx = 1"),
    ("if a:\n    !pip install x\ny = 2", "if a:\n    pass  # !pip install x\ny = 2"),
    ("!pip install a \\\n    b\nx = 1", "# !pip install a \\\n# b\nx = 1"),
    ("t = %timeit -o f()", "t = get_ipython().run_line_magic('timeit', '-o f()')"),
    ("np.array??\nx = 1", "# np.array??\nx = 1"),
    ("?len\nx = 1", "# ?len\nx = 1"),
    (">>> x = 1\n>>> y = 2", "x = 1\ny = 2"),
]


@pytest.mark.parametrize(("cell", "code"), [*((cell, cell) for cell in PLAIN), *MAGIC])
def test_only_what_ipython_reads_is_changed_and_the_rest_is_the_same(cell: str, code: str) -> None:
    (found,) = code_cells(notebook(cell))
    assert found.code == code
    compile(found.code, "cell", "exec")


@pytest.mark.slow
def test_blank_lines_cost_linear_time() -> None:
    start_s = time.process_time()  # a busy machine does not count
    (cell,) = code_cells(notebook("a" + "\n" * 200_000 + "!ls"))
    assert cell.code.endswith("\n# !ls") and time.process_time() - start_s < 60
    many = "\n".join(["!ls"] * 100_000)
    (cell,) = code_cells(notebook(many))
    assert cell.code == many and time.process_time() - start_s < 60


def test_pictures_do_not_count_and_code_does() -> None:
    cell = {"cell_type": "code", "source": "def plot(a):\n    return a", "outputs": ["x" * 5_000]}
    limits = CORPUS.model_copy(update={"max_file_bytes": 1_000})
    data = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4}).encode()
    document = Document("k", "a.ipynb", licenses=("MIT",), data=data)
    ((is_snippet, _),) = extract_document(document, limits)
    assert is_snippet
    long = notebook("x = 1\n" * 1_000).encode()
    ((_, row),) = extract_document(replace(document, data=long), limits)
    assert (row["reason"], row["detail"]) == (
        "too_large",
        "5999 bytes of code, max_file_bytes=1000",
    )


KERNELS = [
    ({"kernelspec": {"name": "ir"}}, "ir"),
    ({"kernelspec": {"name": "julia-1.9", "display_name": "Julia 1.9"}}, "julia"),
    ({"kernelspec": {"name": "python3", "display_name": "Python 3"}}, None),
    ({"kernelspec": {"name": "my-env", "display_name": "Python (r tools)"}}, None),
    ({"kernelspec": {"name": "conda-env"}}, None),
    ({"kernelspec": {"name": "conda-env-r-r", "display_name": "R [conda env:r]"}}, "r"),
    ({"kernelspec": {"name": "conda-env-go-py", "display_name": "go"}}, None),
    ({"kernelspec": {"name": "x", "display_name": "Python [conda env:julia]"}}, None),
    ({"kernelspec": {"name": "net", "display_name": "deep net"}}, "net"),
    ({"kernelspec": {"name": "mine", "display_name": "deep net in c"}}, None),
    ({"kernelspec": {"name": "c_kernel", "display_name": "C"}}, "c"),
    ({"kernelspec": {"name": ".net-csharp", "display_name": ".NET (C#)"}}, "net"),
    ({"kernelspec": {"name": "gophernotes", "display_name": "Go"}}, "go"),
    ({"kernelspec": {"name": "xcpp17"}}, "xcpp"),
    ({"language_info": {"file_extension": ".jl", "mimetype": "application/julia"}}, ".jl"),
    ({"language_info": {"file_extension": ".py"}}, None),
    ({"language": "Julia"}, "julia"),
    ({"jupytext": {"main_language": "R"}}, "r"),
    ({"jupytext": {"main_language": "python"}}, None),
    ({"jupytext": {"main_language": "R"}, "language_info": {"name": "python"}}, None),
    ({"language_info": {"name": "pyspark"}}, None),
    ({"language_info": {"name": "R"}, "kernelspec": {"name": "python3"}}, "r"),
    ({}, None),
]


@pytest.mark.parametrize(("metadata", "language"), KERNELS)
def test_notebooks_of_other_languages(metadata: dict, language: str | None) -> None:
    text = notebook("x = c(1, 2)\nprint(x)\nprint(x)", **metadata)
    ((is_snippet, row),) = rows(text)
    assert is_snippet == (language is None)
    if language:
        assert (row["reason"], row["detail"]) == ("unknown_language", f"its cells are {language}")


PYTHON = {"kernelspec": {"name": "python3"}}


@pytest.mark.parametrize(
    ("line", "name"),
    [("library(knitr)", "r"), ("x.all <- 3", "r"), ("using Plots", "julia"), ("end", "julia")],
)
def test_notebooks_that_say_nothing_are_known_by_their_lines(line: str, name: str) -> None:
    said = f"its cells look like {name}: {line.removesuffix('3').strip()}"
    ((_, row),) = rows(notebook("x = 1\ny = x\nz = y", f"x = 1\n{line}"))
    assert (row["reason"], row["detail"]) == ("unknown_language", said)
    for text in [
        notebook("x = 1\ny = x", f"x = 1\n{line}", **PYTHON),
        notebook("x = 1\ny = x", f"%%R\n{line}"),
        notebook("x = 1\ny = x", f"call({line}"),
    ]:
        assert next(is_snippet for is_snippet, _ in rows(text)), text


def test_cells_of_other_languages_and_cells_without_text() -> None:
    cells = [
        {"cell_type": "code", "input": "puts(1)\nputs(2)", "language": "ruby"},
        {"cell_type": "code", "source": None},
        {"cell_type": "code", "source": "x = 1\nawait x"},
    ]
    text = json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3})
    (ruby, python) = rows(text)
    assert (ruby[0], ruby[1]["reason"]) == (False, "unknown_language")
    assert python[0] and python[1]["code"] == "x = 1\nawait x"
    ((_, row),) = rows(json.dumps({"worksheets": [{"cells": cells[:1]}], "nbformat": 3}))
    assert row["detail"] == "its cells are ruby"


MARKED = [
    ("SELECT a\nFROM b", {"vscode": {"languageId": "sql"}}, "sql"),
    ("x <- 1\ny <- 2", {"kernel": "R"}, "r"),
    ("let x = 1\nx", {"dotnet_interactive": {"language": "fsharp"}}, "fsharp"),
    ("let x = 1\nx", {"polyglot_notebook": {"kernelName": "fsharp"}}, "fsharp"),
    ("%sql\nselect a\nfrom b", {}, "sql"),
    ("%md # Title\nSome text", {}, "md"),
    ("%scala\nval x = 1", {}, "scala"),
    ("%fs ls", {}, "fs"),
    ("%%R -i x\nplot(x)", {}, "R"),
    ("x = 1\ny = 2", {"vscode": {"languageId": "python"}}, ""),
    ("x = 1\ny = 2", {"kernel": "Python3"}, ""),
    ("%sql select 1\ny = 2", {}, ""),
    ("%rerun\ny = 2", {}, ""),
    ("%%local\ny = 2", {}, ""),
    ("%run ./setup\ny = 2", {}, ""),
]


@pytest.mark.parametrize(("source", "metadata", "other"), MARKED)
def test_cells_that_are_marked_as_others(source: str, metadata: dict, other: str) -> None:
    cells = [
        {"cell_type": "code", "source": source, "metadata": metadata},
        {"cell_type": "code", "source": "def f():\n    return 1", "metadata": []},
    ]
    first, second = rows(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))
    assert first[0] == (not other) and second[0]
    if other:
        assert first[1]["detail"] == f"cell 1 is for {other}"


def test_a_broken_cell_costs_no_other() -> None:
    cells = [3, {"cell_type": "code", "source": [1, 2]}, None]
    good = {"cell_type": "code", "source": "def f():\n    return 1"}
    *bad, (is_snippet, row) = rows(json.dumps({"cells": [*cells, good], "nbformat": 4}))
    assert is_snippet and row["name"] == "f"
    assert [row["reason"] for _, row in bad] == ["bad_notebook"] * 3
    assert bad[1][1]["detail"] == "cell 2: its source is no text"


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
