"""Where studies train and score: a training that is finished is found by its key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codepmp_ray.cluster.training import pretrain
from codepmp_ray.config.branches import plan_branches
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.json_records import record_bytes
from codepmp_ray.runs import MODEL_FOLDER, open_stage
from codepmp_ray.scoring.protocol import Scorer
from codepmp_ray.storage import open_store
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.cost import RECORD, own_pairs
from codepmp_ray.studies.policies import answers, best_and_worst
from codepmp_ray.studies.scores import ScoreBook, Trained
from codepmp_ray.studies.trainings import Training
from codepmp_ray.training.checkpoint_folders import FOLDER as CHECKPOINTS
from codepmp_ray.training.shared_checkpoints import remove_shared
from codepmp_ray.training.task import Trunk


def is_in_process(config: TrainingConfig) -> bool:
    """Whether a training of this size runs here: one worker, and no GPU to be had."""
    import torch

    return config.num_workers == 1 and not config.use_gpu and not torch.cuda.is_available()


@contextmanager
def connected(bench: Bench) -> Iterator[None]:
    """Ray, if any training of the recipe needs it."""
    config = bench.config
    sections = (config.warmup, config.pmp, config.rm, config.dpo)
    if all(map(is_in_process, sections)):
        yield
        return
    from codepmp_ray.cluster.connect import connect

    with connect():
        yield


class Laboratory:
    """Trains and scores for studies, in the run directory of `bench`."""

    def __init__(self, bench: Bench) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # one for each of many small models
        self.bench = bench
        self.book = ScoreBook(bench.store, self._load_scorer, bench.config.scoring)

    def train(self, training: Training) -> Trained:
        """The trained model; whatever it starts from is trained first."""
        key = self.bench.key(training)
        folder = self.bench.run_dir / "trainings" / key
        done = Trained(key, training.label, folder / MODEL_FOLDER, training.base)
        if (folder / RECORD).is_file():
            return done
        start = training.start
        weights = (
            self.bench.weights(start) if isinstance(start, str) else str(self.train(start).folder)
        )
        data = self._data(training, key, weights)
        config = training.config.model_copy(
            update={"data": (data,), "model_name_or_path": weights, "eval_fraction": 0.0}
        )
        recipe = Recipe(name=training.label, run_dir=str(folder), pretraining=config)
        start_s = time.monotonic()
        in_process = is_in_process(config)
        summary = pretrain(recipe, self._trunk(training), in_process=in_process)
        stage = open_stage(recipe, "pretraining")
        if not done.folder.exists():
            (Path(stage.uri) / MODEL_FOLDER).rename(done.folder)
        tokens_per_s = summary["tokens_per_second"]
        record = {
            "label": training.label,
            "base": training.base,
            "objective": config.objective,
            "num_own_pairs": own_pairs(self.bench, training),
            "busy_s": _own_busy_s(stage.store, summary, training, self.bench),
            "tokens_per_second": tokens_per_s,
            "duration_s": time.monotonic() - start_s,
            "num_steps": summary["num_steps"],
            "final_loss": summary["final_loss"],
            "config": config.model_dump(mode="json", exclude={"data", "model_name_or_path"}),
        }
        (folder / RECORD).write_bytes(record_bytes(record, indent=1))
        # Six times the model, which is all that anything starts from.
        stage.store.delete_tree(CHECKPOINTS)
        self._leave_trunk(training)
        return done

    def _leave_trunk(self, training: Training) -> None:
        """Delete the shared checkpoint at which a finished branch began: nobody else does."""
        trunk, config = self._trunk(training), training.config
        if trunk is None or config.trunk_steps is None:
            return
        for branch in plan_branches(trunk.config, trunk.branches, config.trunk_steps):
            if branch.total_steps == config.max_steps:
                remove_shared(open_store(trunk.folder), branch.leaves_at)

    def _data(self, training: Training, key: str, weights: str) -> DataSourceConfig:
        """The training's pairs; those of rejection sampling are made here."""
        data, _, _ = self.bench.data(training)
        rejection = training.rejection
        if rejection is None:
            return data
        name = f"data/sampled-{key}.jsonl"
        if not self.bench.store.exists(name):
            judge = self.train(rejection.judge)
            rows = self.bench.pairs.rows(training.pairs, training.base)
            encoder = self.bench.pairs.encoder(training.base)
            prompts = [row["messages"] or row["prompt"] for row in rows]
            sampled = answers(
                weights,
                encoder,
                prompts,
                rejection.max_new_tokens,
                temperature=rejection.temperature,
                num_samples=rejection.num_samples,
                seed=training.config.seed,
                bf16=bool(self.bench.config.models[training.base].bf16),
            )
            made = best_and_worst(self.book, judge, prompts, sampled)
            self.book.close()
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in made)
            self.bench.store.put(name, "".join(lines).encode())
        return data.model_copy(update={"path": str(self.bench.run_dir / name)})

    def _trunk(self, training: Training) -> Trunk | None:
        if training.family is None:
            return None
        whole = training.config.model_copy(update={"max_steps": None, "trunk_steps": None})
        alone = Training(training.label, whole, training.pairs, training.start, training.family)
        folder = self.bench.run_dir / "trunks" / self.bench.key(alone)
        return Trunk(str(folder), whole, training.family)

    def _load_scorer(self, folder: Path) -> Scorer:
        config = self.bench.config.scoring
        if config.engine == "torch":
            import torch

            from codepmp_ray.scoring.torch_scorer import TorchScorer

            device = "cuda" if torch.cuda.is_available() else "cpu"
            return TorchScorer.load(folder, config.max_model_len, config.dtype, device)
        from codepmp_ray.cluster.vllm_scorer import VLLMScorer
        from codepmp_ray.config.evaluation import ServingConfig

        serving = ServingConfig(
            dtype=config.dtype,
            max_model_len=config.max_model_len,
            kv_cache_gb=config.kv_cache_gb,
        )
        return VLLMScorer(str(folder), serving)


def _own_busy_s(store: Any, summary: dict[str, Any], training: Training, bench: Bench) -> float:
    """Seconds of the steps that this training computed; a branch has its trunk's rows as well."""
    from codepmp_ray.training.metrics import is_evaluation, read_metrics

    steps = [row for row in read_metrics(store) if not is_evaluation(row)]
    num_own = -(-own_pairs(bench, training) // training.config.batch_size)
    num_own *= training.config.num_train_epochs
    return sum(row["step_s"] for row in steps[-num_own:])
