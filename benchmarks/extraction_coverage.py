"""How many functions of other people's packages become snippets, and what is taken for valid code.

    python -m benchmarks.extraction_coverage [language ...]

Packages come from PyPI, npm and Debian by their own clients, into a temporary folder. Of every file
that is no test, no vendored copy, not generated and not minified, the outermost named or assigned
functions of 4 to 80 lines are counted by another parser: Python's own, TypeScript's for
JavaScript and TypeScript, Universal Ctags for the others. Covered is one whose lines lie inside an
accepted snippet, counted one that lies in some row of the corpus, with its reason.

Then lines of files that parse are changed one at a time, and the language's own compiler is asked,
where it is installed: false accepts are what it refuses and the corpus takes.
Needs npm, apt-get, ctags and node.
"""

from __future__ import annotations

import ast
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks._results import write_results
from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.extraction import extract_document
from codepmp_ray.corpus.languages import find_language, is_valid

NAME, GOAL = "extraction_coverage", "0.9"
# language -> (client, package); files of other languages in them count where they belong.
PACKAGES = {
    "python": [("pip", "flask"), ("pip", "requests"), ("pip", "networkx"), ("pip", "rich")],
    "javascript": [
        ("npm", name) for name in ["express", "jquery", "lodash", "underscore", "axios", "moment"]
    ]
    + [("npm", name) for name in ["preact", "commander", "async", "backbone"]],
    "typescript": [("npm", name) for name in ["rxjs", "zod", "@tanstack/query-core", "date-fns"]],
    "java": [("npm", "cordova-android"), ("npm", "@capacitor/android")],
    "go": [("apt", f"golang-github-{name}-dev") for name in ("spf13-cobra", "sirupsen-logrus")]
    + [("apt", "golang-golang-x-net-dev")],
    "c": [("npm", name) for name in ("hiredis", "node-expat", "libxmljs2")],
    "cpp": [("npm", name) for name in ("leveldown", "re2", "node-addon-api")],
    "rust": [("apt", f"librust-{name}-dev") for name in ("serde-json", "regex", "rayon-core")],
}
CORPUS = CorpusConfig.model_validate(
    {
        "languages": [
            "python",
            "javascript",
            "typescript",
            "tsx",
            "java",
            "go",
            "c",
            "cpp",
            "cuda",
            "rust",
        ],
        "decontamination": {"enabled": False},
        "max_chars": 20_000,
    }
)
MIN_LINES, MAX_LINES, NUM_MUTANTS = 4, 80, 200
LEFT_OUT = {"vendored", "generated", "minified", "low_alphabet", "too_large"}
TESTS = re.compile(
    r"(?:^|/)(?:tests?|__tests__|spec|testdata|examples?|bench\w*|fuzz\w*)/|[._]test\."
)
Span = tuple[int, int]

# Functions with a name of their own or one that they are assigned to, and members.
NODE = """
const ts = require(process.argv[2]), fs = require("fs");
for (const file of fs.readFileSync(0, "utf8").split("\\n").filter(Boolean)) {
  const text = fs.readFileSync(file, "utf8");
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const line = (at) => source.getLineAndCharacterOfPosition(at).line + 1;
  const found = [];
  const named = (n) => {
    let up = n.parent;
    while (ts.isParenthesizedExpression(up) || ts.isAsExpression(up)) up = up.parent;
    return n.name || ts.isVariableDeclaration(up) || ts.isPropertyAssignment(up) ||
      ts.isPropertyDeclaration(up) || ts.isExportAssignment(up) || ts.isConstructorDeclaration(n) ||
      (ts.isBinaryExpression(up) && up.operatorToken.kind === ts.SyntaxKind.EqualsToken) ||
      (n.modifiers || []).some((m) => m.kind === ts.SyntaxKind.DefaultKeyword);
  };
  const visit = (n) => {
    if (ts.isFunctionLike(n) && n.body && named(n))
      found.push([line(n.getStart()), line(n.end)]);
    ts.forEachChild(n, visit);
  };
  visit(source);
  console.log(JSON.stringify([file, found, source.parseDiagnostics.length]));
}
"""


def fetch(client: str, package: str, folder: Path) -> str:
    """Unpack `package` into `folder`; returns its name with its version."""
    folder.mkdir(parents=True)
    run = {"cwd": folder, "check": True, "capture_output": True, "text": True}
    if client in ("pip", "sdist"):
        only = "--only-binary=:all:" if client == "pip" else "--no-binary=:all:"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", only]
        subprocess.run([*command, package], **run)
    elif client == "npm":
        subprocess.run(["npm", "pack", "--ignore-scripts", package], **run)
    else:
        subprocess.run(["apt-get", "download", package], **run)
    (file,) = folder.iterdir()
    if client == "apt":
        subprocess.run(["dpkg-deb", "-x", file.name, "."], **run)
    else:
        shutil.unpack_archive(file, folder, "zip" if client == "pip" else "gztar")
    for packed in sorted(folder.rglob("*.tar.gz")):  # sources inside a package
        shutil.unpack_archive(packed, packed.parent)
    return file.stem


def oracle(language: str, files: list[Path], compiler: Path) -> dict[Path, list[Span]]:
    """Lines (first, last) of all named functions, as another parser has them."""
    if language == "python":
        return {file: list(_python(file)) for file in files}
    if language in ("javascript", "typescript", "tsx"):
        return {Path(name): spans for name, spans, _ in _typescript(files, compiler)}
    kinds = {"java": "Java:m", "go": "Go:f", "c": "C:f", "cpp": "C++:f", "rust": "Rust:fP"}
    name, _, kind = kinds.get(language, "C++:f").partition(":")
    command = ["ctags", "--output-format=json", "--fields=+ne", f"--language-force={name}"]
    command += [f"--kinds-{name}={kind}", "-f", "-", "-L", "-"]
    listed = "\n".join(map(str, files))
    done = subprocess.run(command, input=listed, capture_output=True, text=True, check=True)
    found: dict[Path, list[Span]] = {file: [] for file in files}
    for line in done.stdout.splitlines():
        tag = json.loads(line)
        if tag.get("_type") == "tag":
            file = Path(tag["path"])
            end = tag.get("end") or _closing_line(file, tag["line"])
            found[file].append((tag["line"], end))
    return found


def outermost(spans: Iterable[Span]) -> list[Span]:
    """Those of the right length that lie in no other one of the right length."""
    right = sorted({(a, b) for a, b in spans if MIN_LINES <= b - a + 1 <= MAX_LINES})
    kept: list[Span] = []
    for a, b in sorted(right, key=lambda span: (span[0], -span[1])):
        if not kept or b > kept[-1][1]:
            kept.append((a, b))
    return kept


def measure(root: Path, compiler: Path) -> dict[str, dict[str, Counter[str]]]:
    """Language -> "covered", "counted" (by reason), "missing" functions, and files."""
    by_language: dict[str, list[Path]] = {}
    rows: dict[Path, tuple[list[Span], list[tuple[int, int, str]]]] = {}
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        name = file.relative_to(root).as_posix().partition("/")[2]
        data = file.read_bytes() if file.stat().st_size <= CORPUS.max_file_bytes else b""
        language = find_language(None, name, data)
        if not data or language not in CORPUS.languages or TESTS.search(name.lower()):
            continue
        document = Document(name, name, licenses=("MIT",), data=data)
        accepted, refused, reasons = [], [], set()
        for is_snippet, row in extract_document(document, CORPUS):
            if is_snippet:
                accepted.append((row["start_line"], row["end_line"]))
                continue
            place = json.loads(row["payload"]) if row["payload"] else {}
            reasons.add(row["reason"])
            ends = place.get("start_line", 1), place.get("end_line", 10**9)
            refused.append((*ends, row["reason"]))
        if not reasons & LEFT_OUT:
            by_language.setdefault(language, []).append(file)
            rows[file] = accepted, refused
    found: dict[str, dict[str, Counter[str]]] = {}
    for language, files in by_language.items():
        counts = found.setdefault(language, {"functions": Counter(), "files": Counter()})
        counts["files"]["all"] = len(files)
        for file, spans in oracle(language, files, compiler).items():
            for a, b in outermost(spans):
                accepted, refused = rows[file]
                inside = [reason for x, y, reason in refused if x <= a and b <= y]
                is_covered = any(x <= a and b <= y for x, y in accepted)
                counts["functions"]["covered" if is_covered else (inside or ["missing"])[-1]] += 1
    return found


def false_accepts(language: str, files: list[Path], compiler: Path, folder: Path) -> Counter[str]:
    """Of changed files: what compiler and corpus say of them."""
    rng, mutants = random.Random(0), []
    folder.mkdir()
    for number in range(NUM_MUTANTS):
        file = rng.choice(files)
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        i = rng.randrange(len(lines))
        if rng.random() < 0.5 or not lines[i]:
            del lines[i]
        else:
            j = rng.randrange(len(lines[i]))
            lines[i] = lines[i][:j] + lines[i][j + 1 :]
        mutant = folder / str(number) / file.name
        mutant.parent.mkdir()
        mutant.write_text("\n".join(lines), encoding="utf-8")
        mutants.append(mutant)
    said = Counter[str]()
    for mutant, compiles in _compiling(language, mutants, compiler).items():
        ours = is_valid(mutant.read_text(encoding="utf-8"), language)
        said[f"{'valid' if compiles else 'invalid'}, {'taken' if ours else 'refused'}"] += 1
    return said


def _compiling(language: str, files: list[Path], compiler: Path) -> dict[Path, bool]:
    """Which files the language's own parser takes; none at all where it is not installed."""
    if language == "python":
        return {file: _compiles(file) for file in files}
    if language in ("typescript", "tsx", "javascript"):
        return {Path(name): not errors for name, _, errors in _typescript(files, compiler)}
    commands = {
        "rust": ["rustfmt", "--edition=2021", "--emit=stdout"],
        "go": ["gofmt", "-e", "-l"],
        "java": ["javac", "-proc:none", "-Xmaxerrs", "100000", "-d", str(files[0].parent)],
    }
    command = commands.get(language)
    if command is None or shutil.which(command[0]) is None:
        return {}
    if language == "rust":  # it ends at the first file with an error
        runs = {file: subprocess.run([*command, file], capture_output=True) for file in files}
        # What it cannot find is no matter of syntax.
        missing = re.compile(rb"error\[E0583\]|[Ee]rror writing files: failed to resolve mod")
        return {
            file: run.returncode == 0
            or all(
                missing.match(line)
                for line in run.stderr.split(b"\n")
                if line[:5].lower() == b"error"
            )
            for file, run in runs.items()
        }
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    errors = done.stderr
    if language == "java":  # what it cannot find, or has already, is no matter of syntax
        semantic = (
            r"cannot find symbol|does not exist|class \w+ is public|incompatible|not abstract"
            r"|duplicate class"
        )
        lines = re.findall(r"^(\S+?:\d+: error: .*)", errors, re.MULTILINE)
        errors = "\n".join(line for line in lines if not re.search(semantic, line))
    return {file: f"{file}:" not in errors for file in files}


def _compiles(file: Path) -> bool:
    try:
        compile(file.read_text(encoding="utf-8"), "x", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _python(file: Path) -> Iterator[Span]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        # A body that is `...` is that of a type stub or an overload.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not (
            isinstance(last := node.body[-1], ast.Expr)
            and isinstance(last.value, ast.Constant)
            and last.value.value is ...
        ):
            yield node.lineno, node.end_lineno or node.lineno


def _typescript(files: list[Path], compiler: Path) -> Iterator[tuple[str, list[Span], int]]:
    listed = "\n".join(map(str, files))
    command = ["node", "-e", NODE, "x", str(compiler)]
    done = subprocess.run(command, input=listed, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        name, spans, num_errors = json.loads(line)
        yield name, [(a, b) for a, b in spans], num_errors


def _closing_line(file: Path, first: int) -> int:
    """Where the brace stands that ends what begins on line `first`, as formatters put it."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    indent = re.match(r"\s*", lines[first - 1])
    end = f"{indent.group() if indent else ''}}}"
    return next((i + 1 for i in range(first, len(lines)) if lines[i].startswith(end)), first)


def main() -> None:
    wanted = sys.argv[1:] or list(PACKAGES)
    results = []
    with tempfile.TemporaryDirectory() as name:
        tools, compiler = Path(name), Path(name, "tool/package/lib/typescript.js")
        fetch("npm", "typescript@5", tools / "tool")
        for language in wanted:
            root = tools / language
            versions = [
                fetch(client, package, root / f"{number:02d}")
                for number, (client, package) in enumerate(PACKAGES[language])
            ]
            print(f"{language}: {', '.join(versions)}", flush=True)
            found = measure(root, compiler).get(language)
            if found is None:
                continue
            functions = found["functions"]
            share = functions["covered"] / max(functions.total(), 1)
            files = [
                file
                for file in sorted(root.rglob("*"))
                if file.is_file()
                and file.stat().st_size < 50_000
                and find_language(None, file.name, file.read_bytes()) == language
                and is_valid(file.read_text(encoding="utf-8", errors="replace"), language)
            ]
            said = false_accepts(language, files[:200], compiler, tools / f"{language}-mutants")
            results.append(
                {
                    "metric": f"functions inside snippets, {language}",
                    "value": round(share, 3),
                    "unit": "share",
                    "goal": GOAL,
                    "spread": None,
                    "runs": 1,
                    "num_functions": functions.total(),
                    "not_covered": dict((functions - Counter(covered=10**9)).most_common()),
                    "num_files": found["files"]["all"],
                    "packages": versions,
                    "changed_files": dict(said),
                }
            )
            print(results[-1], flush=True)
    write_results(NAME, results)


if __name__ == "__main__":
    main()
