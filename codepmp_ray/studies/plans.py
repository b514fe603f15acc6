"""The trainings that studies compare, described as a recipe wants them; nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from codepmp_ray.config.branches import branch_config, plan_branches
from codepmp_ray.config.studies import StudiesConfig
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.studies.pair_rows import PairRows
from codepmp_ray.studies.trainings import Pairs, Rejection, Training

_NUM_SAMPLES = 4


@dataclass(frozen=True)
class Plans:
    """Attributes:
    code_sets: names of the sets that PMP trains on.
    """

    config: StudiesConfig
    pairs: PairRows
    code_sets: Callable[[], tuple[str, ...]]

    def pmp(self, seed: int, model: str, objective: str = "pmp") -> Training:
        """The whole PMP run, which leaves checkpoints for its branches."""
        config = self._for_model(self.config.pmp, model, seed)
        config = config.model_copy(update={"objective": objective})
        num_pairs = self.config.models[model].pmp_pairs or self.config.pmp_pairs
        pairs = Pairs(self.code_sets(), num_pairs, "first")
        family = self.config.branches if objective == "pmp" else None
        label = {"pmp": "PMP", "rm": "PMP, RM loss only", "lm": "PMP, LM loss only"}[objective]
        return Training(f"{label}, seed {seed}", config, pairs, self._start(model), family)

    def pmp_family(self, seed: int, model: str) -> list[Training]:
        """The PMP run and its branches, longest first."""
        whole = self.pmp(seed, model)
        num_pairs = len(self.pairs.rows(whole.pairs, model))
        steps = -(-num_pairs // whole.config.batch_size)
        found = [whole]
        for branch in plan_branches(whole.config, self.config.branches, steps):
            config = branch_config(whole.config, branch, steps)
            label = f"PMP, {branch.total_steps * config.batch_size} pairs, seed {seed}"
            found.append(Training(label, config, whole.pairs, whole.start, self.config.branches))
        return found

    def pmp_pairs_of(self, training: Training) -> int:
        """Pairs that a member of the family has seen."""
        num_pairs = len(self.pairs.rows(training.pairs, training.base))
        steps = training.config.max_steps
        return num_pairs if steps is None else min(num_pairs, steps * training.config.batch_size)

    def pmp_on(
        self, seed: int, model: str, sets: tuple[str, ...], num: int, construction: str = ""
    ) -> Training:
        """PMP on other pairs than the recipe's `code_pairs`."""
        config = self._for_model(self.config.pmp, model, seed)
        pairs = Pairs(sets, num, "shuffled", 0, construction)
        label = f"PMP on {construction or '+'.join(sets)}, seed {seed}"
        return Training(label, config, pairs, self._start(model))

    def rm(self, start: str | Training, sets: tuple[str, ...], num: int, seed: int) -> Training:
        """Finetuning of a reward model; `start` is a PMP run, or a model's name for none."""
        model = start if isinstance(start, str) else start.base
        config = self._for_model(self.config.rm, model, seed)
        config = config.model_copy(update=self._of_sets(sets))
        pairs = Pairs(sets, num, "shuffled", seed)
        begin = self._start(start) if isinstance(start, str) else start
        label = f"RM on {num} of {'+'.join(sets)}, seed {seed}"
        if isinstance(begin, Training):
            label = f"{begin.label}, then {label}"
        return Training(label, config, pairs, begin)

    def policy(
        self, start: str | Training, sets: tuple[str, ...], num: int, seed: int, objective: str
    ) -> Training:
        """A language model finetuned on preference pairs: `sft` on chosen, or `dpo`."""
        section = self.config.dpo if objective == "dpo" else self.config.warmup
        model = start if isinstance(start, str) else start.base
        config = self._for_model(section, model, seed)
        pairs = Pairs(sets, num, "shuffled", seed)
        label = f"{objective.upper()} on {num} of {'+'.join(sets)}, seed {seed}"
        if isinstance(start, Training):
            label = f"{start.label}, then {label}"
        return Training(label, config, pairs, start)

    def rejection_sampled(
        self, start: str, judge: Training, sets: tuple[str, ...], num: int, seed: int, limit: int
    ) -> Training:
        """SFT on the best of four sampled answers (Best-of-N distillation, RFT)."""
        plain = self.policy(start, sets, num, seed, "sft")
        rejection = Rejection(judge, _NUM_SAMPLES, limit)
        return replace(plain, label=f"RFT on {num} prompts, seed {seed}", rejection=rejection)

    def _for_model(self, config: TrainingConfig, model: str, seed: int) -> TrainingConfig:
        """`config` with this seed and what suits `model`."""
        own = self.config.models[model]
        rate = config.learning_rate * own.learning_rate_factor
        rate = own.learning_rates.get(config.objective, rate)
        bf16 = config.bf16 if own.bf16 is None else own.bf16
        return config.model_copy(update={"seed": seed, "learning_rate": rate, "bf16": bf16})

    def _of_sets(self, names: tuple[str, ...]) -> dict[str, float]:
        """What finetuning on these sets has of its own: where all of them say the same."""
        found = {}
        for key in ("learning_rate", "warmup_ratio"):
            (value, *others) = {getattr(self.config.sets[name], key) for name in names}
            if value is not None and not others:
                found[key] = value
        return found

    def _start(self, model: str) -> str | Training:
        """Weights by name, or the warm-up of a model made here."""
        shape = self.config.models[model]
        if shape.model_name_or_path is not None or not shape.warmup_pairs:
            return model
        pairs = Pairs(self.code_sets(), shape.warmup_pairs, "last")
        return Training(f"warm-up of {model}", self.config.warmup, pairs, model)
