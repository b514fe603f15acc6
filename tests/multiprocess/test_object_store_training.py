"""Training whose state lies in an object store: killed, resumed, stopped, branched."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from codepmp_ray.config.branches import BranchesConfig, branch_config, plan_branches
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.modeling.sources import resolve_model
from codepmp_ray.storage import open_store
from codepmp_ray.training.checkpoint_folders import whole_steps
from codepmp_ray.training.stopping import forget_stop
from codepmp_ray.training.task import Trunk
from tests.multiprocess.test_training_exactness import TRAINING, losses, run, weights
from tests.s3_server import S3Server


@pytest.fixture
def environment(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Of the ranks; the cache of this machine's copies is new, for this process too."""
    cache = {"CODEPMP_CACHE": str(tmp_path / "a cache")}
    monkeypatch.setenv(*next(iter(cache.items())))
    return {**s3_server.environment, **cache}


def copies(environment: dict[str, str]) -> list[str]:
    """What this machine keeps of the store, without the locks."""
    folder = Path(environment["CODEPMP_CACHE"]) / "remote"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def require_same_weights(run_uri: str, on_disk: Path) -> Path:
    """This machine's copy of the exported model, which has the bits of the run on a disk."""
    folder = Path(resolve_model(f"{run_uri}/model"))
    ours, theirs = load_file(folder / "model.safetensors"), weights(on_disk)
    assert set(ours) == set(theirs)
    assert all(ours[name].equal(theirs[name]) for name in ours)
    return folder


@pytest.mark.rehearsal
def test_killed_resumed_and_begun_from_gives_the_bits_of_a_disk(
    environment: dict[str, str],
    s3_bucket: str,
    tmp_path: Path,
    tiny_model_dir: Path,
    preference_rows: list[dict],
) -> None:
    settings = {"max_steps": 6, "report_to": ["tensorboard"]}
    expected = run(tmp_path / "disk", tiny_model_dir, preference_rows, 2, **settings)
    there = f"{s3_bucket}/a run/pretraining"
    store, remote = open_store(there), {"environment": environment, **settings}
    run(there, tiny_model_dir, preference_rows, 2, die_at=5, **remote)
    assert 2 in whole_steps(store) and not store.exists("model")  # that of step 4, perhaps
    assert ShardLedger(store).totals().num_input_rows == 24
    assert copies(environment) == []  # of the tokens, which every rank has open

    rows = run(there, tiny_model_dir, preference_rows, 2, **remote)
    assert losses(rows) == losses(expected) and len(losses(rows)) == 6
    assert store.list("checkpoints") == []
    assert store.list("tensorboard")
    folder = require_same_weights(there, tmp_path / "disk")
    assert copies(environment) == [folder.name]

    # Another training begins with it, from each machine's copy.
    finetuning = {"objective": "rm", "max_steps": 2}
    run(tmp_path / "tuned", tmp_path / "disk" / "model", preference_rows, 2, **finetuning)
    tuned = f"{s3_bucket}/a run/finetuning"
    remote = {"environment": environment, **finetuning}
    run(tuned, f"{there}/model", preference_rows, 2, **remote)
    require_same_weights(tuned, tmp_path / "tuned")


def test_a_request_to_stop_leaves_a_checkpoint_and_branches_share_theirs(
    environment: dict[str, str],
    s3_bucket: str,
    tmp_path: Path,
    tiny_model_dir: Path,
    preference_rows: list[dict],
) -> None:
    config = TrainingConfig.model_validate({**TRAINING, "decay_ratio": 0.3, "max_steps": 6})
    branches = BranchesConfig(factor=1.3, num_branches=1)
    trunk = Trunk(f"{s3_bucket}/trunk", config, branches)
    (branch,) = plan_branches(config, branches, 6)
    settings = config.model_dump(exclude=set(TRAINING)) | {"environment": environment}
    there = f"{s3_bucket}/whole"
    store = open_store(there)
    run(there, tiny_model_dir, preference_rows, 1, trunk=trunk, stop_at=1, **settings)
    assert whole_steps(store) == [1] and not store.exists("model")
    forget_stop(store)
    run(there, tiny_model_dir, preference_rows, 1, trunk=trunk, **settings)
    assert whole_steps(open_store(trunk.folder)) == [branch.leaves_at]
    own = branch_config(config, branch, 6)
    settings = own.model_dump(exclude=set(TRAINING))
    plain = run(tmp_path / "plain", tiny_model_dir, preference_rows, 1, **settings)
    settings |= {"environment": environment, "trunk": trunk}
    rows = run(f"{s3_bucket}/branch", tiny_model_dir, preference_rows, 1, **settings)
    assert losses(rows) == losses(plain)
    require_same_weights(f"{s3_bucket}/branch", tmp_path / "plain")


def test_weights_that_one_rank_cannot_put_end_the_other_too(
    environment: dict[str, str],
    s3_server: S3Server,
    s3_bucket: str,
    tiny_model_dir: Path,
    preference_rows: list[dict],
) -> None:
    there, settings = f"{s3_bucket}/a run", {"max_steps": 1, "environment": environment}
    s3_server.fail("full", times=10_000, part="model/model.safetensors")
    try:
        code = StorageError.exit_code
        run(there, tiny_model_dir, preference_rows, 2, exit_code=code, **settings)
    finally:
        s3_server.fail(None)
    # The first rank, which writes the rest, did not go on without them.
    assert not open_store(there).exists("model/config.json")
    run(there, tiny_model_dir, preference_rows, 2, **settings)
    assert open_store(there).exists("model/model.safetensors")
