"""CodeUltraFeedback_binarized (Weyssow et al. 2024): `instruction`, `chosen`, `rejected`, as text.

The set of the paper's Table 13.
"""

from __future__ import annotations

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import Row, make_pair, row_by_row, text_cell
from codepmp_ray.preference.sources.trl import margin_of

COLUMNS = ({"instruction", "chosen", "rejected"},)


def build_row(row: Row, config: DataSourceConfig) -> list[Row]:
    prompt, chosen, rejected = (
        text_cell(row, name) for name in ("instruction", "chosen", "rejected")
    )
    return [make_pair(prompt, chosen, rejected, config, margin=margin_of(row, config))]


build = row_by_row(build_row)
