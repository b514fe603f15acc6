"""How many shards an actor gets at once: rows enough for its engine, however small shards are."""

import pytest

from codepmp_ray.cluster.shard_graph import MAX_BLOCKS, MIN_BLOCKS, blocks_at_once
from codepmp_ray.config.engines import EngineConfig

SMALL = EngineConfig(engine_args={"max_num_seqs": 32})


@pytest.mark.parametrize(
    ("engine", "rows_per_shard", "expected"),
    [
        (SMALL, None, MIN_BLOCKS),  # web pairs, which have no engine
        (SMALL, 1000.0, MIN_BLOCKS),
        (SMALL, 16.0, 4),
        (SMALL, 1.5, 43),  # a replay: few rows of every shard
        (SMALL, 0.01, MAX_BLOCKS),
        (EngineConfig(max_rows_in_flight=256), 16.0, 16),
        (EngineConfig(max_rows_in_flight=20, engine_args={"max_num_seqs": 32}), 1.0, 20),
    ],
)
def test_small_shards_come_many_at_a_time(engine, rows_per_shard, expected) -> None:
    assert blocks_at_once(engine, rows_per_shard) == expected
