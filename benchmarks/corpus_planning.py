"""What planning a large corpus takes: a listing of files, and footers of Parquet files.

    python -m benchmarks.corpus_planning [number of files, 1000000] [number of rows, 1000000000]

Files are names with sizes, as a listing gives them. Rows are those of Parquet footers: one file
with row groups of a million rows (of one column that compresses to nothing) is planned again and
again under other names, so that a thousand million rows need no disk. Each part runs in a process
of its own, which reports its peak memory; the plan is stored and read again, as the job does.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._results import one_result, write_results
from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.planning import in_runs, load_plan, plan_corpus, save_plan
from codepmp_ray.storage import LocalStore
from codepmp_ray.storage.inputs import Listed

NAME, MAX_GB = "corpus_planning", 2.0
ROWS_PER_FILE = 4_000_000


def plan_files(folder: Path, num_files: int) -> dict[str, float]:
    corpus = CorpusConfig(source=SourceConfig(kind="folder", path=str(folder), license="MIT"))
    files = [
        Listed(f"{i // 1_000:05d}/some/deeper/folder/file_{i:07d}.py", 4_096, i)
        for i in range(num_files)
    ]
    return _plan(corpus, folder, files)


def plan_rows(folder: Path, num_rows: int) -> dict[str, float]:
    source = folder / "source"
    source.mkdir()
    table = pa.table({"content": pa.array(["x"] * 1_000_000)})
    with pq.ParquetWriter(source / "0.parquet", table.schema) as writer:
        for _ in range(ROWS_PER_FILE // table.num_rows):
            writer.write_table(table, row_group_size=table.num_rows)
    files = []
    for i in range(num_rows // ROWS_PER_FILE):
        name = f"{i}.parquet"
        if i:
            (source / name).symlink_to("0.parquet")
        files.append(Listed(name, 1, i))
    corpus = CorpusConfig(source=SourceConfig(kind="parquet", path=str(source), license="MIT"))
    return _plan(corpus, source, files)


def _plan(corpus: CorpusConfig, root: Path, files: list[Listed]) -> dict[str, float]:
    start_s = time.perf_counter()
    plan = plan_corpus(corpus, root, files)
    planned_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        store = LocalStore(name)
        save_plan(store, plan)
        loaded = load_plan(store)
    assert loaded == plan
    runs = in_runs(corpus, loaded.units, 16)
    end_s = time.perf_counter()
    return {
        "plan_s": planned_s - start_s,
        "store_s": end_s - planned_s,
        "num_units": len(plan.units),
        "num_runs": len(runs),
        "num_documents": plan.num_taken,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    if sys.argv[1:2] == ["--part"]:
        part, number, folder = sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
        print(json.dumps((plan_files if part == "files" else plan_rows)(folder, number)))
        return
    given = [int(text) for text in sys.argv[1:]]
    num_files, num_rows = (*given, *(1_000_000, 1_000_000_000)[len(given) :])
    results = []
    for part, number in (("files", num_files), ("rows", num_rows)):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", f"benchmarks.{NAME}", "--part", part, str(number)]
            done = subprocess.run([*command, folder], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        results += [
            one_result(
                f"peak memory of planning {number:,} {part}",
                found["peak_gb"],
                "GB",
                f"at most {MAX_GB:g}",
                **found,
            ),
            one_result(f"{part} planned", round(number / found["plan_s"]), f"{part}/s", **found),
        ]
        print(results[-2:], flush=True)
    write_results(NAME, results)


if __name__ == "__main__":
    main()
