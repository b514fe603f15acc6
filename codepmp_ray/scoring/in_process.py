"""A file of prompts and candidates scored in this process: no Ray, no run directory."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from codepmp_ray.config.evaluation import BatchScoringConfig, ServingConfig
from codepmp_ray.errors import ConfigError, EngineError
from codepmp_ray.io.shards import plan_pieces, read_piece
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.preference.tokenization import Encoder
from codepmp_ray.records import SCORED_ROW, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.scoring.batch_rows import Row, parse_row, plan_row, refuse, row_source, scored
from codepmp_ray.scoring.best_of_n import RequestPlan, rank
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.scoring.protocol import Scores
from codepmp_ray.scoring.torch_scorer import TorchScorer

# A rejected row has its place and these; a scored one has them empty.
_REJECT = ("reject_reason", "reject_detail")
_SCHEMA = pa.schema([*SCORED_ROW, *(pa.field(name, pa.string()) for name in _REJECT)])


def score_file(
    serving: ServingConfig, config: BatchScoringConfig, counts: dict[str, Any]
) -> Iterator[Row]:
    """Every row of `config.path` with its rewards by the model in `serving.model_path`, or with
    the reason why it has none; `counts` is told of each.

    Raises InputError for files that cannot be read, and what loading the model raises, before the
    first row.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # rows are the progress
    source = row_source(config)
    pieces = plan_pieces(source)  # what cannot be read is known before a model is loaded
    model = str(serving.model_path)
    require_model(serving, model)
    folder = resolve_model(model)
    encoder = Encoder.load(folder, serving.template)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scorer = TorchScorer.load(folder, serving.max_model_len, serving.dtype, device)
    reasons: Counter[str] = Counter()
    counts |= {"num_rows": 0, "num_candidates": 0, "rejected_by_reason": reasons}
    for piece in pieces:
        for index, raw in read_piece(piece, source):
            row = _scored(parse_row(raw, piece, index, config), encoder, scorer)
            counts["num_rows"] += 1
            counts["num_candidates"] += row.get("num_candidates") or 0
            if row.get("reject_reason"):
                reasons[row["reject_reason"]] += 1
            yield {name: row[name] for name in _SCHEMA.names if row.get(name) is not None}


def write_rows(rows: Iterable[Row], output: Path | None, stream: TextIO) -> None:
    """Rows as they come as JSON lines to `stream` or a .jsonl file, or together to a .parquet one.

    A file is there when it is whole. Raises ConfigError for another suffix.
    """
    if output is not None and output.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(
            f"--output={output}: {output.suffix or 'no suffix'} is no format that can be written.",
            "Name a .jsonl or a .parquet file.",
        )
    if output is None:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False), file=stream, flush=True)
        return
    with _made_whole(output) as file:
        if output.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(table_from_rows(list(rows), _SCHEMA), file, compression="zstd")
        else:
            with file.open("w", encoding="utf-8") as lines:
                for row in rows:
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _scored(row: Row, encoder: Encoder, scorer: TorchScorer) -> Row:
    if row.get("reject_reason"):
        return row
    plan = plan_row(row, encoder, scorer.max_model_len)
    if not isinstance(plan, RequestPlan):
        return plan
    try:
        rewards = scorer.rewards(plan.prompt_ids, plan.response_ids)
        return scored(row, rank(plan, Scores([*rewards])))
    except EngineError as error:
        return refuse(row, RejectReason.ENGINE_ERROR, error.problem)


@contextmanager
def _made_whole(output: Path) -> Iterator[Path]:
    """A file beside `output` that takes its name at the end of the block."""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")
    try:
        yield part
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
