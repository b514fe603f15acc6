"""A wheel of this tree, built without a network and unpacked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SOURCES = (
    *("codepmp_ray", "serve", "jobs", "pyproject.toml", "README.md", "LICENSE"),
    *("constraints.txt", "overrides.txt", "overrides-cpu.txt"),
)
_BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"


def build(kind: str, folder: Path) -> Path:
    """The wheel or sdist, made in `folder` of a copy of the tree: a build leaves files in it."""
    tree, out = folder / "tree", folder / kind
    if not tree.exists():
        tree.mkdir(parents=True)
        for name in _SOURCES:
            if (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
            else:
                shutil.copy(ROOT / name, tree)
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _BUILD.format(kind, str(out))],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out / done.stdout.split()[-1]


def unpacked_wheel(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds what an installation would."""
    site = folder / "site"
    with zipfile.ZipFile(build("wheel", folder)) as wheel:
        wheel.extractall(site)
    return site
