"""Finished rows -> the two tables of a shard: pairs and rejected rows, each row in exactly one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from codepmp_ray.config.engines import EnginesConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.records import stable_id
from codepmp_ray.synthesis.constructions import make_construction
from codepmp_ray.synthesis.gates import judge_pair
from codepmp_ray.synthesis.hops import reject_payload
from codepmp_ray.synthesis.prompts import template_version
from codepmp_ray.synthesis.rows import tables_of

_COPIED = ("snippet_id", "source_id", "blob_id", "repo", "path", "language", "license",
           "description", "description_num_tokens", "chosen_num_tokens", "rejected_num_tokens",
           "description_finish_reason", "chosen_finish_reason", "rejected_finish_reason",
           "chosen", "rejected")  # fmt: skip


def split_rows(
    rows: list[dict[str, Any]], config: SynthesisConfig, engines: EnginesConfig
) -> dict[str, pa.Table]:
    """Tables "pairs" and "rejected" that together hold every row once."""
    pairs, rejected = [], []
    for row in rows:
        reason, detail = row.get("reject_reason"), row.get("reject_detail")
        if not reason and (refused := judge_pair(row, config.gates)):
            reason, detail = refused
        if reason:
            rejected.append(rejected_row(row, str(reason), detail or ""))
        else:
            pairs.append(_pair(row, config, engines))
    return tables_of(pairs, rejected)


def _pair(row: dict[str, Any], config: SynthesisConfig, engines: EnginesConfig) -> dict[str, Any]:
    construction = make_construction(config)
    models = {
        hop: getattr(engines, role).model_name_or_path for hop, role in construction.hops().items()
    }
    if row.get("swapped"):
        models["chosen"], models["rejected"] = models["rejected"], models["chosen"]
    return {
        "pair_id": stable_id(row["snippet_id"], config.construction),
        "prompt": construction.prompt(row),
        **{name: row[name] for name in _COPIED},
        **{name: row.get(name) for name in ("margin", "domain", "domain_confidence")},
        "tests": "\n\n".join(filter(None, (row.get("tests"), row.get("weak_tests")))) or None,
        "construction": config.construction,
        "describe_model": models["describe"],
        "strong_model": models.get("chosen"),
        "weak_model": models["rejected"],
        "prompt_template": template_version(config.prompts),
    }


def rejected_row(row: dict[str, Any], reason: str, detail: str) -> dict[str, Any]:
    """The REJECTED row of a snippet that became no pair."""
    return {
        "row_id": row["snippet_id"],
        "stage": "synthesis",
        "reason": reason,
        "detail": detail,
        "source_id": row["source_id"],
        "blob_id": row["blob_id"],
        "repo": row["repo"],
        "path": row["path"],
        "payload": reject_payload(row),
    }
