"""What a stage optimises, as a value: which outputs it needs and how their sums become the loss.

pmp   L_RM + w L_LM        preference-model pretraining, section 3.1
rm    L_RM                 reward-model finetuning, equation 2
lm    L_LM on chosen       pretraining without the reward loss (Table 2); rewards are reported
sft   L_LM on chosen       supervised finetuning: rejected is not even computed, no reward head
dpo   Rafailov et al. 2023 the policy's own likelihoods as implicit rewards, no reward head

Of a prompt with several answers chosen are those that nothing is preferred to, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from codepmp_ray.preference.items import EncodedItem, Sides
from codepmp_ray.preference.packing import PackedBatch

Counts = dict[str, float]
Name = Literal["pmp", "rm", "lm", "sft", "dpo"]


@dataclass(frozen=True)
class Term:
    """`weight` x (sum of `name` over the step) / (weights of pairs or lists, or chosen tokens)."""

    name: str
    weight: float
    per: Literal["pair", "list", "token"]


@dataclass(frozen=True)
class Objective:
    """One objective with its coefficients.

    Attributes:
        is_listwise: L_RM is a cross-entropy for each chosen answer over what it is preferred to.
        is_per_prompt: all pairs of a prompt count one together (all its lists, if listwise), as
            in section 3.5 of Ouyang et al. 2022; otherwise each does.
    """

    name: Name
    terms: tuple[Term, ...]
    beta: float = 0.0
    is_listwise: bool = False
    is_per_prompt: bool = False

    def loss(self, sums: dict[str, torch.Tensor], counts: Counts) -> torch.Tensor:
        """Scalar: sums over a batch, each over the step's count of what it is a mean over."""
        # Best answers may all be in other steps, where an item was split: then L_LM is 0 of 0.
        parts = [term.weight * sums[term.name] / (counts[term.per] or 1) for term in self.terms]
        return torch.stack(parts).sum()

    def counts(self, items: Sequence[EncodedItem]) -> Counts:
        """What means over `items` are over: weights of pairs and lists, tokens of best answers.

        Under other names the plain number of pairs, and the tokens of either side of all pairs.
        """
        per_prompt = self.is_per_prompt
        sides = [
            sum(len(item.answers[pair[side]]) for item in items for pair in item.pairs)
            for side in (0, 1)
        ]
        num_lists = [len({chosen for chosen, _ in item.pairs}) for item in items]
        lists = zip(items, num_lists, strict=True)
        return {
            "pair": sum(len(i.pairs) / (i.num_pairs if per_prompt else 1) for i in items),
            "list": sum(number / (i.num_lists if per_prompt else 1) for i, number in lists),
            "token": sum(len(ids) for item in items for ids in item.targets("best")),
            "num_pairs": sum(len(item.pairs) for item in items),
            "chosen_token": sides[0],
            "rejected_token": sides[1],
        }

    def pair_weights(self, batch: PackedBatch) -> torch.Tensor:
        """[P]: how much each pair counts."""
        return batch.pair_shares if self.is_per_prompt else torch.ones_like(batch.pair_shares)

    def list_weights(self, batch: PackedBatch) -> torch.Tensor:
        """[A]: how much the list of each chosen answer counts."""
        return batch.list_shares if self.is_per_prompt else torch.ones_like(batch.list_shares)

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
            return "all"
        return "best_alone" if self.name == "sft" else "best"


def make_objective(
    name: Name,
    *,
    lm_weight: float = 1.0,
    center: float = 0.0,
    beta: float = 0.1,
    is_listwise: bool = False,
    is_per_prompt: bool = False,
) -> Objective:
    """The objective `name`; see `Objective` for the last two.

    Args:
        lm_weight: of L_LM beside L_RM (Table 2; the paper uses 1).
        center: of the squared sum of a pair's rewards, which keeps rewards around zero.
        beta: of DPO.
    """
    per: Literal["pair", "list"] = "list" if is_listwise else "pair"
    rewards = (Term("rm", 1.0, per), *((Term("center", center, "pair"),) if center else ()))
    lm = Term("lm", lm_weight, "token")
    terms: dict[Name, tuple[Term, ...]] = {
        "pmp": (*rewards, lm),
        "rm": rewards,
        # The head takes part with nothing: its shards would have no gradient on some ranks.
        "lm": (lm, Term("rm", 0.0, per)),
        "sft": (Term("lm", 1.0, "token"),),
        "dpo": (Term("dpo", 1.0, "pair"),),
    }
    beta = beta if name == "dpo" else 0.0
    return Objective(name, terms[name], beta, is_listwise, is_per_prompt)
