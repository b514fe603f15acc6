"""Released scores of reward models on CodeRewardBench become a row of figures for each model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.code_reward_bench import results
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.pairwise.accuracy import Bootstrap

pytestmark = pytest.mark.slow

NUM = 600
FEW = Bootstrap(num_bootstrap=50)


def _write(file: Path, gaps: np.ndarray, first_id: int = 0) -> None:
    ids = np.arange(len(gaps))[::-1] + first_id  # in another order than ids are
    table = {
        "id": ids.tolist(),
        "language": ["C" if i % 3 else "Go" for i in ids],
        "aspect": ["Security" if i % 2 else "Readability" for i in ids],
        "chosen_score": gaps.tolist(),
        "rejected_score": [0.0] * len(gaps),
    }
    pq.write_table(pa.table(table), file)


def test_models_are_ranked_and_held_against_the_best(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    good = generator.normal(3, 3, NUM)
    _write(tmp_path / "good.parquet", good)
    _write(
        tmp_path / "poor.parquet", np.where(np.arange(NUM) < 60, 0.0, generator.normal(0, 3, NUM))
    )
    first, second = results(tmp_path, FEW)
    assert (first["metric"], second["metric"]) == ("accuracy_good", "accuracy_poor")
    assert first["value"] == pytest.approx(100 * (good > 0).mean(), abs=0.01)
    assert first["spread"][0] < first["value"] < first["spread"][1]
    assert second["ties"] == 60 and second["value"] < 50  # ties are wrong
    assert set(first["parts"]) == {"Security", "Readability", "C", "Go"}
    assert first["p_holm"] is None and second["p_holm"] < 0.001
    assert second["best_minus_this"][0] == pytest.approx(first["value"] - second["value"], abs=0.02)
    assert first["auc"][0] > 0.8 > second["auc"][0]
    assert second["temperature"] > 2 and second["temperature_kept"]


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.parquet"):
        results(tmp_path, FEW)
    _write(tmp_path / "a.parquet", np.ones(NUM))
    _write(tmp_path / "b.parquet", np.ones(NUM), first_id=1)
    with pytest.raises(InputError, match=r"b\.parquet holds other pairs than a\.parquet"):
        results(tmp_path, FEW)
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two rows of one id"):
        results(tmp_path, FEW)
