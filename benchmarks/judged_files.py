"""Sheets of other people's files, to be judged one by one by a reader; then the counts.

    python -m benchmarks.judged_files sheets LANGUAGE FOLDER [--num-files 100]
    python -m benchmarks.judged_files counts VERDICTS.json

`sheets` unpacks the language's PACKAGES into FOLDER (what is there already stays), chooses files at
random with a fixed seed, the packages in turn, and prints of each what the corpus makes of it with
the shipped settings: its language, each snippet with its first and last line, each rejected part
with its reason, and the functions of another parser that are in neither.

`counts` writes what the reader found. VERDICTS: language -> {"packages": [...], "num_files": n,
"before": {"right_language": n, "right_snippets": n, "right_reasons": n}, "after": {...}}, before
and after the faults that were seen were mended.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks._results import write_results
from benchmarks.extraction_coverage import CORPUS, Span, fetch, oracle, outermost
from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import extract_document
from codepmp_ray.corpus.languages import NOTEBOOK, find_language
from codepmp_ray.corpus.licenses import header_license

NAME, SEED = "judged_files", 25


# language -> (endings of names, client, packages); none is among those of `extraction_coverage`.
PACKAGES = {
    "python": (
        (".py", ".pyi", ".pyw"),
        "pip",
        "django sqlalchemy pytest boto mypy scipy-stubs twisted setuptools matplotlib sympy "
        "aiohttp hypothesis textual jupyter-server",
    ),
    "javascript": (
        (".js", ".mjs", ".cjs", ".jsx"),
        "npm",
        "react-native vue three webpack eslint mocha ember-source next mathjs codemirror ramda "
        "sequelize @babel/core generator-node",
    ),
    "typescript": (
        (".ts", ".mts", ".cts", ".tsx"),
        "npm",
        "@types/node type-fest effect ajv @reduxjs/toolkit @trpc/server react-aria-components "
        "expo-router @nestjs/schematics @tanstack/react-table viem @schematics/angular immer "
        "react-select",
    ),
    "notebook": (
        (".ipynb",),
        "sdist",
        "papermill nbformat nbconvert nbclient nbval nbsphinx jupytext nbdime voila leafmap "
        "pythreejs xarray seaborn tsfresh imbalanced-learn holoviews datashader ipyparallel "
        "dynesty octave-kernel juliacall emcee",
    ),
}
QUESTIONS = ("right_language", "right_snippets", "right_reasons")
SETTINGS = CorpusConfig.model_validate({"languages": [*CORPUS.languages, NOTEBOOK]})


def choose(folder: Path, endings: tuple[str, ...], num_files: int) -> list[Path]:
    """Files of all packages in turn, each package's in random order."""
    rng, orders = random.Random(SEED), []
    for package in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = [path for path in sorted(package.rglob("*")) if path.suffix in endings]
        files = [path for path in files if path.is_file() and not path.is_symlink()]
        orders.append(rng.sample(files, len(files)))
    rounds = range(max(map(len, orders), default=0))
    return [order[i] for i in rounds for order in orders if i < len(order)][:num_files]


def sheet(file: Path, name: str, functions: list[Span]) -> Iterator[str]:
    """Lines on one file: "+" a snippet, "-" what is rejected, "?" functions in neither."""
    data = file.read_bytes()
    lines = data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    licenses, language = header_license(data), find_language(None, name, data)
    yield f"{name} | {len(lines)} lines | {language} | {licenses} | {lines[0].strip()[:80]}"
    document = Document(name, name, licenses=licenses or ("MIT",), data=data)
    spans = []
    for is_snippet, row in extract_document(document, SETTINGS):
        place = row if is_snippet else json.loads(row["payload"] or "{}")
        first, last = place.get("start_line", 1), place.get("end_line", len(lines))
        spans.append((first, last))
        says = f"{first}-{last} {place.get('kind', 'file')} {place.get('name', '')}"
        if is_snippet:
            code = row["code"].split("\n")
            yield f" + {says} | {code[0].strip()[:60]} ... {code[-1].strip()[-30:]}"
        else:
            yield f" - {says} | {row['reason']}: {row['detail'][:120]}"
    for first, last in outermost(functions):
        if not any(a <= first and last <= b for a, b in spans):
            yield f" ? {first}-{last} | {lines[first - 1].strip()[:80]}"


def print_sheets(language: str, folder: Path, num_files: int) -> None:
    endings, client, packages = PACKAGES[language]
    for package in packages.split():
        place = folder / language / package.replace("/", "+")
        if not place.exists():
            print(f"# {fetch(client, package, place)}", flush=True)
    tool = folder / "compiler"
    if not tool.exists():
        fetch("npm", "typescript@5", tool)
    files = choose(folder / language, endings, num_files)
    by_language: dict[str, list[Path]] = {}
    for file in files:
        by_language.setdefault(find_language(None, file.name, file.read_bytes()) or "", []).append(
            file
        )
    functions: dict[Path, list[Span]] = {}
    for found in by_language.keys() & set(CORPUS.languages):
        functions |= oracle(found, by_language[found], tool / "package/lib/typescript.js")
    for number, file in enumerate(files, start=1):
        package, _, path = file.relative_to(folder / language).as_posix().partition("/")
        print(f"== {number} [{package}]", *sheet(file, path, functions.get(file, [])), sep="\n")


def counts(verdicts: dict[str, dict]) -> list[dict]:
    return [
        {
            "metric": f"{question.replace('_', ' ')}, {language}",
            "value": found["after"][question],
            "before": found["before"][question],
            "unit": "files",
            "goal": None,
            "spread": None,
            "runs": 1,
            "num_files": found["num_files"],
            "judged_by": "reading the sheets; where snippets begin and end by other parsers",
            "packages": found["packages"],
        }
        for language, found in verdicts.items()
        for question in QUESTIONS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("language", choices=sorted(PACKAGES))
    sheets.add_argument("folder", type=Path)
    sheets.add_argument("--num-files", type=int, default=100)
    commands.add_parser("counts").add_argument("verdicts", type=Path)
    asked = parser.parse_args()
    if asked.command == "sheets":
        print_sheets(asked.language, asked.folder, asked.num_files)
    else:
        write_results(NAME, counts(json.loads(asked.verdicts.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
