"""What a stage optimises, as a value: which outputs it needs and how their sums become the loss.

pmp   L_RM + w L_LM        preference-model pretraining, section 3.1
rm    L_RM                 reward-model finetuning, equation 2
lm    L_LM on chosen       pretraining without the reward loss (Table 2); rewards are reported
sft   L_LM on chosen       supervised finetuning: rejected is not even computed, no reward head
dpo   Rafailov et al. 2023 the policy's own likelihoods as implicit rewards, no reward head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from codepmp_ray.preference.packing import Sides

Name = Literal["pmp", "rm", "lm", "sft", "dpo"]


@dataclass(frozen=True)
class Term:
    """`weight` x (sum of `name` over the step) / (number of pairs, or of chosen tokens)."""

    name: str
    weight: float
    per: Literal["pair", "token"]


@dataclass(frozen=True)
class Objective:
    """One objective with its coefficients."""

    name: Name
    terms: tuple[Term, ...]
    beta: float = 0.0

    def loss(self, sums: dict[str, torch.Tensor], counts: dict[str, int]) -> torch.Tensor:
        """Scalar: sums over a batch, each over the step's number of pairs or of tokens."""
        parts = [term.weight * sums[term.name] / counts[term.per] for term in self.terms]
        return torch.stack(parts).sum()

    @property
    def has_rewards(self) -> bool:
        """Whether there is a scalar head; such models are exported as reward models."""
        return self.name in ("pmp", "rm", "lm")

    @property
    def has_lm(self) -> bool:
        return self.name != "rm"

    @property
    def sides(self) -> Sides:
        """What `preference.packing.pack` has to put into a sequence."""
        if self.name == "dpo":
            return "both"
        return "chosen_alone" if self.name == "sft" else "chosen"


def make_objective(
    name: Name, *, lm_weight: float = 1.0, center: float = 0.0, beta: float = 0.1
) -> Objective:
    """The objective `name`.

    Args:
        lm_weight: of L_LM beside L_RM (Table 2; the paper uses 1).
        center: of the squared sum of a pair's rewards, which keeps rewards around zero.
        beta: of DPO.
    """
    rewards = (Term("rm", 1.0, "pair"), *((Term("center", center, "pair"),) if center else ()))
    lm = Term("lm", lm_weight, "token")
    terms: dict[Name, tuple[Term, ...]] = {
        "pmp": (*rewards, lm),
        "rm": rewards,
        # The head takes part with nothing: its shards would have no gradient on some ranks.
        "lm": (lm, Term("rm", 0.0, "pair")),
        "sft": (Term("lm", 1.0, "token"),),
        "dpo": (Term("dpo", 1.0, "pair"),),
    }
    return Objective(name, terms[name], beta if name == "dpo" else 0.0)
