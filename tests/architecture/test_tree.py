"""What no file of the tree may hold: addresses of registries, paths of somebody's machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Written in two halves, so that this file does not find itself.
FORBIDDEN = {
    "a package registry's address": r"pypi\.or" + r"g/|pythonhosted\.or" + r"g|npmjs\.or" + r"g",
    "an index option": r"--(?:extra-)?index-url[ =]+(?:https?|file):|\bfile:///(?!\{)\w",
    "a path of one machine": r"(?<![\w.~$}])/(?:ro" + r"ot|home/\w+|Users/\w+|work)/\w",
}


def _tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout: there is no list of the tree's files")
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{file.relative_to(ROOT)}: {match.group()}"
        for file in _tracked()
        for match in pattern.finditer(_text(file))
    ]
    assert found == []


def test_the_one_allowed_index_is_named_where_it_is_used_and_explained() -> None:
    holders = [file for file in _tracked() if "download.pytorch" + ".org" in _text(file)]
    named = ("codepmp_ray/versions.py", "docs/install.md", "scripts/setup.sh")
    assert holders == [ROOT / name for name in named]


def test_no_lock_file_and_nothing_large() -> None:
    files = _tracked()
    locks = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "package-lock.json"}
    assert [file for file in files if file.name in locks] == []
    # `ray job submit --working-dir .` uploads the tree; Ray's limit is 100 MiB for all of it.
    assert [file for file in files if file.stat().st_size > 2_000_000] == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a package registry's address", "https://pypi.or" + "g/simple"),
        ("an index option", "pip install --extra-index-url" + " https://x"),
        ("an index option", "file:/" + "//opt/wheels"),
        ("a path of one machine", 'open("/ro' + 'ot/x")'),
        ("a path of one machine", "cd /home/" + "someone/codepmp-ray"),
    ],
)
def test_the_patterns_find_what_they_are_for(what: str, text: str) -> None:
    assert re.search(FORBIDDEN[what], text)
