"""How a backbone is trained: packed, or as ordinary sequences where packing would be wrong.

Families differ in ways that no list keeps up with: layers with a state, attention of their own,
positions of their own. So before weights are loaded a small model of the same configuration class
is computed both ways and held against plain transformers, on the device and with the kernels of the
training: rewards, losses, gradients and the rewards of the export. What packing computes wrongly
takes the plain path (`plain_rows`); what that computes wrongly too is refused by name.

The result is kept in the cache, by configuration, versions, device and the code that it rests on.
"""

from __future__ import annotations

import copy
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from codepmp_ray.errors import ModelError, StorageError
from codepmp_ray.modeling.building import require_causal_lm, with_heads
from codepmp_ray.modeling.dropout import without_dropout
from codepmp_ray.modeling.objectives import Objective, make_objective
from codepmp_ray.modeling.parity import GRADIENTS, differences, export_difference
from codepmp_ray.modeling.plain_reference import looks_ahead, plain_sums
from codepmp_ray.modeling.small_config import small_configs
from codepmp_ray.preference.items import EncodedItem, join_pairs
from codepmp_ray.storage import LocalStore
from codepmp_ray.storage.node_copies import cache_dir

VALUES_WITHIN, GRADIENTS_WITHIN = 1e-4, 1e-3  # of fp32; another rule shows in the second digit
_FOLDER = "family-checks"
_LARGEST = 10**8  # parameters of a model that is computed for nothing else
_SPREAD, _NOISE = 0.1, 0.1  # far from the symmetric start, where attention says nothing


@dataclass(frozen=True)
class TrainingPath:
    """`reason` is why items are not packed; empty where they are."""

    is_packed: bool
    reason: str = ""

    def line(self, stage: str, model_type: str) -> str:
        """What a training says before its first step; empty for the usual path."""
        if self.is_packed:
            return ""
        return (
            f"{stage}: {model_type} trains on the plain path, an ordinary sequence for each answer "
            f"without packing, which is slower: {self.reason}."
        )


@dataclass(frozen=True)
class _Verdict:
    is_packed: bool = False
    reason: str = ""
    problem: str = ""
    remedy: str = ""


def choose_path(config: Any, objective: Objective, device: torch.device) -> TrainingPath:
    """How a backbone of this transformers configuration is trained on `device`.

    Raises ModelError, which names what differs and by how much, where no way is right. Seconds for
    a configuration that is new to this machine.
    """
    require_causal_lm(config)
    cache = LocalStore(cache_dir() / _FOLDER)
    name = f"{_key(config, objective, device)}.json"
    verdict = _kept(cache, name)
    if verdict is None:
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller computes
            verdict = _judge(config, objective, device)
        with suppress(StorageError):  # without a cache the check runs again, and nothing is lost
            cache.put(name, json.dumps(asdict(verdict)).encode())
    if verdict.problem:
        raise ModelError(verdict.problem, verdict.remedy)
    return TrainingPath(verdict.is_packed, verdict.reason)


def _judge(config: Any, objective: Objective, device: torch.device) -> _Verdict:
    model_type = config.model_type
    try:
        small = working_small_config(config, device)
    except ModelError as error:
        return _Verdict(problem=error.problem, remedy=error.remedy)
    items = probe_items(small.vocab_size)
    if looks_ahead(random_model(small).to(device), items[0]):
        return _Verdict(
            problem=f"{model_type} is no causal decoder: what a token computes changes with the "
            "tokens after it.",
            remedy="Choose a decoder-only backbone such as Llama, Qwen or Gemma.",
        )
    packed = _wrong(small, objective, device, is_packed=True)
    if not packed:
        return _Verdict(is_packed=True)
    plain = _wrong(small, objective, device, is_packed=False)
    if not plain:
        return _Verdict(reason=f"packed, {packed}")
    remedy = "Choose another backbone (docs/families.md lists those that were compared)"
    if objective.has_rewards and "L_LM" in plain and "rewards" not in plain:
        remedy += ", or set objective=rm, which has no L_LM"
    return _Verdict(
        problem=f"{model_type} is not trained: a small model of its configuration differs from "
        f"plain transformers. As ordinary sequences, {plain}; packed, {packed}.",
        remedy=f"{remedy}.",
    )


def working_small_config(config: Any, device: torch.device) -> Any:
    """The first small configuration whose plain forward and backward work.

    Raises ModelError when there is none.
    """
    failures: list[str] = []
    for small in small_configs(config):
        try:
            with torch.device("meta"):
                empty: Any = AutoModelForCausalLM.from_config(copy.deepcopy(small))
            num_parameters = sum(parameter.numel() for parameter in empty.parameters())
            if num_parameters > _LARGEST:
                failures.append(f"the smallest has {num_parameters} parameters")
                continue
            causal_lm = random_model(small).to(device)
            sums = plain_sums(
                causal_lm, None, probe_items(small.vocab_size)[:1], make_objective("sft")
            )
            sums["lm"].backward()
        except Exception as error:  # noqa: BLE001 - families fail in all ways
            failures.append(_first_line(error))
            continue
        return small
    raise ModelError(
        f"{config.model_type} cannot be held against plain transformers: no small model of its "
        f"configuration can be made ({[*failures, 'its sizes have other names'][0]}).",
        "Choose another backbone (docs/families.md lists those that were compared).",
    )


def random_model(config: Any) -> Any:
    """A causal LM in fp32 on CPU in training mode, without dropout, of weights that all matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        causal_lm: Any = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=torch.float32
        )
        with torch.no_grad():
            torch.manual_seed(1)  # how many numbers were drawn so far may differ between runs
            for parameter in causal_lm.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=_SPREAD)
                else:  # norms, biases, rates: around what the family begins with
                    parameter.add_(torch.randn_like(parameter) * _NOISE)
    without_dropout(causal_lm)
    return causal_lm.train()


def probe_items(vocab_size: int) -> list[EncodedItem]:
    """An item of four answers and a pair; rows differ in length by more than a small window."""
    generator = torch.Generator().manual_seed(5)
    items = []
    for number, lengths in enumerate([(7, 9, 14, 3, 6), (12, 5, 20)]):
        ids = torch.randint(vocab_size // 4, vocab_size, (sum(lengths),), generator=generator)
        prompt, *answers = (part.tolist() for part in ids.split(lengths))
        middle = len(answers) // 2
        pairs = [
            EncodedItem.of_pair(str(number), prompt, chosen, rejected, 0.1 * number)
            for chosen in answers[:middle]
            for rejected in answers[middle:]
        ]
        references = [-20.0 - number, -31.5, -9.0, -12.5][: len(answers)]
        items.append(replace(join_pairs(pairs), references=references))
    return items


def _wrong(small: Any, objective: Objective, device: torch.device, *, is_packed: bool) -> str:
    """What differs, in words; empty for nothing."""
    items = probe_items(small.vocab_size)
    try:
        # Twice the same weights; no copy, since some keep the state of their last sequence.
        causal_lm, made = (random_model(small).to(device) for _ in range(2))
        model = with_heads(made, objective, is_packed=is_packed)
        if model.score is not None:
            weight = model.score.weight
            generator = torch.Generator().manual_seed(1)
            # Rewards around 1: a loss of rewards far apart is a small number with a large error.
            weight.data = torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5
        model.to(device).train()
        found = differences(causal_lm, model, items) | export_difference(model, items)
    except Exception as error:  # noqa: BLE001 - families fail in all ways
        return f"it fails ({_first_line(error)})"
    over = [
        f"{name} differ by {value:.1e} (limit {limit:.0e})"
        if name.endswith("s")
        else f"{name} differs by {value:.1e} (limit {limit:.0e})"
        for name, value in found.items()
        if not value <= (limit := GRADIENTS_WITHIN if name == GRADIENTS else VALUES_WITHIN)
    ]
    return ", ".join(over)


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
    return text if len(text) < 200 else f"{text[:200]}..."


def _key(config: Any, objective: Objective, device: torch.device) -> str:
    facts = config.to_dict()
    for name in ("_name_or_path", "architectures", "dtype", "transformers_version"):
        facts.pop(name, None)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = [version(package) for package in ("torch", "transformers")]
    parts = [type(config).__name__, facts, asdict(objective), name, versions, _code()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def _code() -> str:
    """Digest of the code that computes packs, rows and losses, and of the check itself."""
    from codepmp_ray.preference import items, packing

    of_packs = [Path(str(module.__file__)) for module in (items, packing)]
    files = [*sorted(Path(__file__).parent.glob("*.py")), *of_packs]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _kept(cache: LocalStore, name: str) -> _Verdict | None:
    try:
        return _Verdict(**json.loads(cache.read_bytes(name)))
    except (StorageError, ValueError, TypeError):
        return None
