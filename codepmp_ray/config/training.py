"""Preference-model pretraining (PMP) and reward-model (RM) finetuning; paper Tables 7 to 9."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from codepmp_ray.config.base import LabelSelector, Section, later, operational
from codepmp_ray.config.data import DataSourceConfig, check_names

BestMetric = Literal[
    "eval_loss", "eval_loss_rm", "eval_loss_lm", "eval_loss_dpo", "eval_accuracy", "eval_margin",
    "eval_rewards/chosen", "eval_rewards/rejected", "eval_rewards/accuracies",
    "eval_rewards/margins", "eval_logps/chosen", "eval_logps/rejected", "eval_logits/chosen",
    "eval_logits/rejected",
]  # fmt: skip
# What TRL's DPOTrainer has beside, under its names.
_OF_DPO: set[str] = {name for name in get_args(BestMetric) if "/" in name}
_METRICS_OF: dict[str, set[str]] = {
    "pmp": {"eval_loss_rm", "eval_loss_lm", "eval_accuracy", "eval_margin"},
    "rm": {"eval_loss_rm", "eval_accuracy", "eval_margin"},
    "lm": {"eval_loss_rm", "eval_loss_lm", "eval_accuracy", "eval_margin"},
    "sft": {"eval_loss_lm"},
    "dpo": {"eval_loss_dpo", "eval_accuracy", "eval_margin", *_OF_DPO},
}


class TrainingConfig(Section):
    """One training stage.

    Pairs of one prompt that follow each other are one item, whose prompt and answers are computed
    once. A step takes whole items: as many as hold `batch_size` pairs on average.

    Attributes:
        objective: `pmp` is L_RM + lm_loss_weight x L_LM (section 3.1), `rm` is L_RM alone,
            `lm` is L_LM alone (Table 2). `sft` is L_LM on chosen without a reward head and `dpo`
            direct preference optimisation; both export a causal LM.
        ranking_loss: L_RM is over pairs, equation 2, or `listwise` a cross-entropy of each chosen
            answer among itself and all that it is preferred to.
        pair_weight: each pair counts `one`, as in the authors' code, or all of a prompt count
            `one_per_prompt` (each 1/K of K pairs; of `listwise` each list 1/K of K lists).
        dpo_beta: of `dpo`; its reference is the model that training begins with.
        data: preference sets to train on; empty means the pairs that this run makes.
        model_name_or_path: initial weights; null in finetuning means this run's pretrained model.
        revision: branch, tag or commit of a hub model; null is its main branch. The run keeps the
            commit that it means when the stage begins.
        max_steps: as in transformers it wins over `num_train_epochs`: beyond the pairs' end further
            epochs follow, each in an order of its own, and the schedule spans these steps.
        schedule: `wsd` is warmup-stable-decay, `cosine` is warmup-cosine-decay; `linear` and
            `constant` follow their warmup with a line to the floor and with nothing.
        trunk_steps: of a branch (see config/branches.py): steps of the run that it leaves. Warmup
            is then that of the trunk, decay a share of the branch's own `max_steps`.
        max_length: tokens of prompt + one response.
        overflow: longer pairs are left out and counted, or cut at their end.
        max_tokens_per_item: packed tokens of a prompt with its answers; beyond it the prompt's
            pairs are split into several items. null is twice `max_length`, which holds any pair.
        max_tokens_per_micro_batch: packed tokens of one forward of one worker.
        template: `chat` renders the prompt with the tokenizer's template, `plain` uses it as is.
        chat_template_kwargs: what the chat template is rendered with, such as `enable_thinking:
            false`; saved with the model.
        append_eos: end every response with EOS; off reproduces the authors' scripts.
        data_parallel_replicate_degree: copies of the model (HSDP), each sharded over as many
            workers; with one per node, weights are gathered over fast links only.
        eval_steps: optimizer steps between evaluations on held-out pairs; null: at both ends only.
        best_metric: export the evaluated step where this is best, not the last step; its checkpoint
            stays beside the newest ones. Ties go to the earlier step; step 0 does not take part.
        greater_is_better: of `best_metric`; null: unless it is a loss.
        min_workers: elastic training: begin with as few workers, and go on with whatever is left
            when nodes leave; the result is that of `num_workers`.
        elastic_interval_s: how often a training with fewer workers looks for room for more.
        stop_timeout_s: how long `ray job stop` and Ctrl-C wait for the workers' last checkpoint.
        report_to: trackers that get what metrics.jsonl gets; `tensorboard` writes event files,
            `wandb` needs WANDB_API_KEY or WANDB_MODE=offline on the nodes.
        cpu_offload: keep parameters and optimizer in host memory between uses; slower.
        torch_compile: compile the parts of each block (null: on GPUs); half a minute at the start
            of each worker.
        full_determinism: on GPUs use torch's deterministic algorithms, so that a resumed run has
            the bits of an uninterrupted one; slower. CPUs compute the same bits without it.
        num_train_epochs: passes over the pairs.
        batch_size: pairs of one optimizer step over all workers.
        learning_rate: at the top of the schedule.
        warmup_ratio / decay_ratio: shares of all steps; `decay_ratio` is of `wsd`.
        min_lr_ratio: share of the learning rate at which the schedule ends.
        weight_decay / adam_beta1 / adam_beta2 / adam_epsilon: of AdamW; norms, biases and the
            reward head do not decay.
        max_grad_norm: to which gradients are clipped; 0: they are not.
        lm_loss_weight: of L_LM in `pmp`.
        center_rewards_coefficient: of the mean square of a pair's sum of rewards, which keeps them
            around 0; as in TRL.
        eval_fraction: share of the pairs, by prompt, that is held out.
        bf16: compute in bfloat16; parameters, gradients and optimizer stay in float32.
        export_dtype: of the exported weights.
        seed: of the order of pairs and of the reward head.
        num_workers: Ray Train workers; as many must be there, unless `min_workers` says less.
        cpus_per_worker: Ray CPUs of one worker.
        label_selector: nodes that workers may run on.
        gradient_checkpointing: compute activations again in the backward pass: less memory, a third
            more time.
        use_gpu: null: where the cluster has a GPU per worker.
        save_steps / save_total_limit: optimizer steps between checkpoints, and how many are kept.
        async_checkpoints: write checkpoints while training goes on.
        logging_steps: optimizer steps between lines of metrics.jsonl.
        max_failures: of workers or nodes before the training ends; a wrong setting ends it at once.
    """

    objective: Literal["pmp", "rm", "lm", "sft", "dpo"] = "pmp"
    data: tuple[DataSourceConfig, ...] = ()
    model_name_or_path: str | None = None
    revision: str | None = later(None)
    num_train_epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=3e-6, gt=0)
    trunk_steps: int | None = Field(default=None, ge=1)
    schedule: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    warmup_ratio: float = Field(default=0.03, ge=0, le=1)
    decay_ratio: float = Field(default=0.1, ge=0, le=1)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    lm_loss_weight: float = Field(default=1.0, ge=0)
    center_rewards_coefficient: float = Field(default=0.0, ge=0)
    ranking_loss: Literal["pairwise", "listwise"] = later("pairwise")
    pair_weight: Literal["one", "one_per_prompt"] = later("one")
    dpo_beta: float = Field(default=0.1, gt=0)
    max_length: int = Field(default=1024, ge=8)
    max_tokens_per_item: int | None = later(None, ge=16)
    overflow: Literal["reject", "truncate"] = "reject"
    template: Literal["chat", "plain"] = "chat"
    chat_template_kwargs: dict[str, Any] = {}
    append_eos: bool = True
    eval_fraction: float = Field(default=0.05, ge=0, lt=1)
    eval_steps: int | None = Field(default=None, ge=1)
    best_metric: BestMetric | None = None
    greater_is_better: bool | None = None
    bf16: bool = True
    export_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0

    num_workers: int = operational(2, ge=1)
    min_workers: int | None = operational(None, ge=1)
    elastic_interval_s: float = operational(60.0, gt=0)
    cpus_per_worker: float = operational(1.0, gt=0)
    label_selector: LabelSelector = operational({})
    data_parallel_replicate_degree: int = operational(1, ge=1)
    gradient_checkpointing: bool = operational(False)
    max_tokens_per_micro_batch: int = operational(2048, ge=8)
    cpu_offload: bool = operational(False)
    torch_compile: bool | None = operational(None)
    full_determinism: bool = operational(False)
    use_gpu: bool | None = operational(None)
    save_steps: int = operational(100, ge=1)
    save_total_limit: int = operational(2, ge=1)
    async_checkpoints: bool = operational(True)
    logging_steps: int = operational(1, ge=1)
    report_to: list[Literal["tensorboard", "wandb"]] = operational([])
    stop_timeout_s: float = operational(60.0, gt=0)
    max_failures: int = operational(3, ge=0)

    def result_fields(self) -> dict[str, Any]:
        """When pairs are evaluated matters only where an evaluation chooses the step."""
        kept = super().result_fields()
        if self.best_metric is None:
            del kept["eval_steps"]
        return kept

    @property
    def item_tokens(self) -> int:
        """Packed tokens that an item has at most."""
        return self.max_tokens_per_item or 2 * self.max_length

    def num_warmup_steps(self, total_steps: int) -> int:
        """Optimizer steps of warmup in a run of `total_steps`; a branch has those of its trunk."""
        return _share(self.warmup_ratio, self.trunk_steps or total_steps)

    def num_decay_steps(self, total_steps: int) -> int:
        """Optimizer steps of `wsd`'s decay in a run of `total_steps`."""
        return _share(self.decay_ratio, total_steps)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        check_names(self.data)
        if self.revision is not None and self.model_name_or_path is None:
            raise ValueError(
                f"revision={self.revision} is of model_name_or_path, which is not set; the model "
                "of an engine has its own revision there"
            )
        if self.max_tokens_per_micro_batch < self.max_length:
            raise ValueError(
                f"max_tokens_per_micro_batch={self.max_tokens_per_micro_batch} is below "
                f"max_length={self.max_length}; raise it to at least {2 * self.max_length}"
            )
        if self.item_tokens < 2 * self.max_length:
            raise ValueError(
                f"max_tokens_per_item={self.max_tokens_per_item} may not hold a pair at "
                f"max_length={self.max_length}; raise it to at least {2 * self.max_length}"
            )
        if self.ranking_loss == "listwise" and self.objective not in ("pmp", "rm"):
            raise ValueError(
                f"ranking_loss=listwise is of L_RM, which objective={self.objective} does not train"
            )
        if self.num_workers % self.data_parallel_replicate_degree:
            raise ValueError(
                f"data_parallel_replicate_degree={self.data_parallel_replicate_degree} does not "
                f"divide num_workers={self.num_workers}"
            )
        if self.schedule == "wsd" and self.warmup_ratio + self.decay_ratio > 1:
            raise ValueError(
                f"warmup_ratio={self.warmup_ratio} + decay_ratio={self.decay_ratio} exceed 1"
            )
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers={self.min_workers} is above num_workers={self.num_workers}"
            )
        if self.min_workers is not None and self.data_parallel_replicate_degree > 1:
            raise ValueError(
                f"min_workers={self.min_workers} cannot go with data_parallel_replicate_degree="
                f"{self.data_parallel_replicate_degree}, which may not divide what is left"
            )
        self._check_best()
        self._check_branch()
        return self

    def _check_best(self) -> None:
        if self.best_metric is None:
            return
        if self.eval_steps is None or self.eval_fraction == 0:
            raise ValueError(
                f"best_metric={self.best_metric} chooses among evaluations: set eval_steps, and "
                f"eval_fraction above 0"
            )
        known = {"eval_loss"} | _METRICS_OF[self.objective]
        if self.best_metric not in known:
            raise ValueError(
                f"best_metric={self.best_metric} is not measured with objective={self.objective}; "
                f"choose one of {', '.join(sorted(known))}"
            )

    def _check_branch(self) -> None:
        if self.trunk_steps is None:
            return
        if self.schedule != "wsd" or self.max_steps is None or self.max_steps > self.trunk_steps:
            raise ValueError(
                f"trunk_steps={self.trunk_steps} needs schedule=wsd and max_steps up to that, "
                f"not schedule={self.schedule}, max_steps={self.max_steps}"
            )


def _share(ratio: float, total_steps: int) -> int:
    """`ratio` of the steps, rounded up; 0.07 of 100 is 7, though the product is a bit above it."""
    return math.ceil(ratio * total_steps - 1e-9)
