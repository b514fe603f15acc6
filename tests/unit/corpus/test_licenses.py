"""Licences: SPDX expressions, and nothing unknown that is taken for allowed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codepmp_ray.config.corpus import CorpusConfig, NearDuplicateConfig, SourceConfig
from codepmp_ray.corpus.extraction import extract_unit
from codepmp_ray.corpus.licenses import header_license, license_refusal, license_text
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import check_corpus_config, list_files, source_root
from codepmp_ray.errors import ConfigError

ALLOWED = CorpusConfig().allowed_licenses
GOOD = "def good(x):\n    y = x\n    z = y\n    return z\n"


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True),
        (" mit ", True),
        ("MIT OR Apache-2.0", True),
        ("GPL-2.0-only OR MIT", True),
        ("MIT/GPL-2.0-only", True),
        ("(MIT OR Apache-2.0) AND ISC", True),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", True),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", False),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT WITH LLVM-exception", False),
        ("GPL-3.0-only WITH LLVM-exception OR MIT", True),
        ("Apache-2.0+", True),
        ("GPL-3.0-or-later", False),
        ("NOASSERTION", False),
        ("LicenseRef-MIT", False),
        ("The MIT License", False),
        ("MIT OR", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0 OR MIT", True),
        ("(GPL-2.0-only WITH Classpath-exception-2.0) AND MIT", False),
        ("MIT WITH Foo-exception", False),
        ("LicenseRef-Proprietary OR MIT", True),
        ("LicenseRef-Proprietary AND MIT", False),
        ("DocumentRef-x:LicenseRef-y", False),
        ("MIT AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("GPL-3.0-only OR MIT AND AGPL-3.0-only", False),
        ("Dual MIT/GPL", False),
        ("MIT, Apache-2.0", False),
        ("MIT|GPL-3.0", False),
        ("GPL-2.0+", False),
        ("BSD", False),
        ("SEE LICENSE IN LICENSE", False),
        ("https://spdx.org/licenses/MIT", False),
        ('["MIT", "GPL-3.0"]', False),
        ("(" * 5_000 + "MIT" + ")" * 5_000, False),
        ("MIT OR " * 5_000 + "MIT", True),
        ("", False),
    ],
)
def test_expressions(expression: str, is_allowed: bool) -> None:
    refusal = license_refusal((expression,), ALLOWED)
    assert (refusal is None) == is_allowed
    assert is_allowed or refusal
    assert license_refusal((expression, "GPL-3.0-only"), ALLOWED) is not None
    assert license_refusal(("Our Own",), ("our own",)) is None  # a list may hold other names


def test_what_is_written_can_be_read_again() -> None:
    assert license_text(("mit", "apache-2.0", "MIT")) == "MIT AND Apache-2.0"
    text = license_text(("MIT OR GPL-3.0-only", "ISC"))
    assert text == "(MIT OR GPL-3.0-only) AND ISC" and license_refusal((text,), ALLOWED) is None


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"# SPDX-License-Identifier: MIT\nx = 1\n", ("MIT",)),
        (b"#!/bin/x\n/* SPDX-License-Identifier: GPL-2.0 OR MIT */\n", ("GPL-2.0 OR MIT",)),
        (b"// SPDX-License-Identifier: Apache-2.0\r\n", ("Apache-2.0",)),
        (b" * SPDX-License-Identifier: (MIT OR ISC)\n */\n", ("(MIT OR ISC)",)),
        (b"<!-- SPDX-License-Identifier: MIT -->\n", ("MIT",)),
        (b"/// SPDX-License-Identifier: MIT\n", ("MIT",)),
        (b"\xef\xbb\xbf//! spdx-license-identifier : GPL-3.0\n", ("GPL-3.0",)),
        (b"// Copyright 2020 X. SPDX-License-Identifier: GPL-3.0-only\n", ("GPL-3.0-only",)),
        (b" *   @license SPDX-License-Identifier: MIT\n", ("MIT",)),
        (b"/** SPDX-License-Identifier: MIT **/\n", ("MIT",)),
        (b"# SPDX-License-Identifier: MIT // or so\n", ("MIT",)),
        (b"## -*- SPDX-License-Identifier: MIT -*-\n", ("MIT",)),
        (b'    "# SPDX-License-Identifier: GPL-3.0\\n",\n', ("GPL-3.0",)),
        (b"# SPDX-License-Identifier: MIT (see LICENSE)\n", ("MIT (see LICENSE)",)),
        (b"x = 1  # SPDX-License-Identifier: MIT\n", ()),
        (b'find("SPDX-License-Identifier: MIT")\n', ()),
        (b"x = 1\n", ()),
    ],
)
def test_headers(head: bytes, found: tuple[str, ...]) -> None:
    assert header_license(head) == found


def licenses(source: SourceConfig) -> dict[str, str | None]:
    """Path -> the licence of its snippet, None for what was refused for its licence."""
    corpus = CorpusConfig(source=source, near_duplicates=NearDuplicateConfig(enabled=False))
    root, found = source_root(source), {}
    for unit in plan_corpus(corpus, root, list_files(source)).units:
        tables = extract_unit(corpus, root, unit, None)
        found |= {row["path"]: row["license"] for row in tables.snippets.to_pylist()}
        for row in tables.rejected.to_pylist():
            assert row["reason"] in ("license_not_allowed", "unknown_language", "unreadable"), row
            found[row["path"]] = None if row["reason"] == "license_not_allowed" else row["detail"]
    return found


CELLS = {
    "null": (pa.nulls(1), "MIT"),
    "text": (pa.array(["ISC"]), "ISC"),
    "bytes": (pa.array([b"ISC"]), "ISC"),
    "list": (pa.array([["MIT", "ISC"]]), "MIT AND ISC"),
    "bad bytes": (pa.array([b"GPL-3.0-only"]), None),
    "structs": (pa.array([[{"spdx": "MIT"}]]), None),
    "struct": (pa.array([{"key": "mit"}]), None),
    "empty list": (pa.array([[]], pa.list_(pa.string())), None),
    "list of null": (pa.array([[None, "MIT"]]), None),
    "empty text": (pa.array([""]), None),
    "number": (pa.array([0]), None),
    "false": (pa.array([False]), None),
}


@pytest.mark.parametrize(("column", "expected"), CELLS.values(), ids=CELLS)
def test_only_an_empty_cell_has_the_licence_of_its_source(
    tmp_path: Path, column: pa.Array, expected: str | None
) -> None:
    table = pa.table({"content": [GOOD], "path": ["a.py"], "license": column})
    pq.write_table(table, tmp_path / "a.parquet")
    source = SourceConfig(kind="parquet", path=str(tmp_path), license="MIT")
    assert licenses(source) == {"a.py": expected}


def test_cells_of_json(tmp_path: Path) -> None:
    cells = [None, "MIT", {"key": "mit"}, [], ["MIT", None], [{"key": "mit"}], 0, False, "GPL-3.0"]
    rows = [{"content": GOOD, "path": f"{i}.py", "license": v} for i, v in enumerate(cells)]
    rows.append({"content": "# SPDX-License-Identifier: GPL-2.0-only\n" + GOOD, "path": "h.py"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = licenses(SourceConfig(kind="jsonl", path=str(tmp_path), license="MIT"))
    assert {path for path, name in found.items() if name == "MIT"} == {"0.py", "1.py"}
    assert all(name is None for path, name in found.items() if path not in ("0.py", "1.py"))


def test_a_folder_states_its_licences_itself(tmp_path: Path) -> None:
    from identify.vendor import licenses as texts

    text = dict(texts.LICENSES)
    for name, content in {
        "LICENSE": text["MIT"].replace("[year]", "2024").replace("[fullname]", "Somebody"),
        "a.py": GOOD,
        "b.py": "# SPDX-License-Identifier: ISC\n" + GOOD,
        "c.py": "# SPDX-License-Identifier: GPL-2.0-only\n" + GOOD,
        "deep/er/d.py": GOOD,
        "other/COPYING": text["GPL-3.0"],
        "other/e.py": GOOD,
        "odd/LICENSE.txt": "Do what you like, but not on Sundays.\n",
        "odd/f.py": GOOD,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    source = SourceConfig(kind="folder", path=str(tmp_path))
    check_corpus_config(CorpusConfig(source=source))
    found = {path: name for path, name in licenses(source).items() if path.endswith(".py")}
    assert found == {
        "a.py": "MIT",
        "b.py": "ISC",
        "c.py": None,
        "deep/er/d.py": "MIT",
        "other/e.py": None,
        "odd/f.py": None,
    }
    given = licenses(source.model_copy(update={"license": "ISC"}))
    assert given["a.py"] == given["other/e.py"] == "ISC" and given["c.py"] is None
    (tmp_path / "LICENSE").unlink()
    with pytest.raises(ConfigError, match="licence is not known"):
        check_corpus_config(CorpusConfig(source=source))


def test_links_out_of_a_source_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "src", tmp_path / "private"
    inside.mkdir()
    outside.mkdir()
    (outside / "own.py").write_text(GOOD)
    (inside / "a.py").write_text(GOOD)
    (inside / "good.py").symlink_to("a.py")
    (inside / "bad.py").symlink_to("../private/own.py")
    (inside / "loop.py").symlink_to("loop.py")
    found = licenses(SourceConfig(kind="folder", path=str(inside), license="MIT"))
    assert found == {
        "a.py": "MIT",
        "good.py": "MIT",
        "bad.py": "a link to a file outside of the source",
        "loop.py": "a link that leads nowhere",
    }
