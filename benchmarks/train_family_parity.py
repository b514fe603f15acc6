"""Which decoder families train, each against plain transformers: two ordinary sequences, fp64.

Every family of `_families` is saved in a tiny shape as transformers saves it, looked at as a
training looks at it, loaded, computed, exported and read again. The docs page lists what was found.

    python -m benchmarks.train_family_parity [family ...]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._families import FAMILIES, Family
from benchmarks._results import RESULTS, conclude, one_result

LOSS_WITHIN, GRADIENTS_WITHIN, EXPORT_WITHIN = 1e-6, 1e-4, 1e-6
DOCUMENT = Path(__file__).parents[1] / "docs/families.md"
PACKED, PLAIN, REFUSED, WRONG = "exact", "exact on the plain path", "refused", "wrong"
_GOALS = {PACKED: "at least 30", PLAIN: None, REFUSED: None, WRONG: "0"}
_METRICS = {
    PACKED: "families_exact",
    PLAIN: "families_exact_on_plain_path",
    REFUSED: "families_refused_at_start",
    WRONG: "families_silently_wrong",
}
_HEAD = """# Families of backbones

Made by `python -m benchmarks.train_family_parity`. Each family is computed in a tiny shape of
random weights and held against plain transformers, two ordinary sequences for each pair in fp64
(losses within 1e-6, every gradient within 1e-4), then exported and read again. Before a training
begins a small model of your own configuration is compared in the same way, on the device of the
training: a family that is not listed trains, or is refused before weights are loaded, by that rule.

- **exact**: pairs are packed and share their prompt.
- **exact on the plain path**: two ordinary sequences for each pair, padded; slower. Chosen
  automatically, and said before the first step.
- **refused**: by name, before data is read.
- **base + head**: transformers has no sequence classification class for the family. The export is
  the base model with the reward head in `reward_head.safetensors`, which this project's torch
  scorer and trainings read; vLLM and other programs do not.

The hub stores every expert of a mixture by itself, and transformers computes with one tensor for
all of a layer. Each worker makes that tensor while it reads, one at a time: besides its own part
of the model its host memory holds one layer's experts in the checkpoint's type.

| family | published models | state | losses | gradients | export |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What became of one family: relative differences, and how it is exported or why not."""

    family: str
    models: str
    state: str
    losses: float | None = None
    gradients: float | None = None
    export: str = ""
    detail: str = ""


def look(family: Family, folder: Path) -> Row:
    """Save, choose, load, compute, export and read one family below `folder`."""
    import torch

    from codepmp_ray.errors import ModelError
    from codepmp_ray.modeling.export import require_exportable
    from codepmp_ray.modeling.loading import load_config, load_preference_model
    from codepmp_ray.modeling.objectives import make_objective
    from codepmp_ray.modeling.paths import choose_path, random_model

    objective = make_objective("pmp")
    base = folder / "base"
    config = family.config()
    random_model(config).save_pretrained(base)
    try:
        path = choose_path(load_config(str(base)), objective, torch.device("cpu"))
        model = load_preference_model(str(base), objective, seed=3)
        alone = require_exportable(model)
    except ModelError as error:
        return Row(family.name, family.models, REFUSED, detail=str(error))
    losses, gradients, rewards = _differences(model, base)
    export = _export_difference(model, rewards, folder / "export")
    is_exact = losses <= LOSS_WITHIN and gradients <= GRADIENTS_WITHIN and export <= EXPORT_WITHIN
    state = (PACKED if path.is_packed else PLAIN) if is_exact else WRONG
    form = "base + head" if alone else "sequence classifier"
    return Row(family.name, family.models, state, losses, gradients, form, path.reason)


def _differences(model: Any, base: Path) -> tuple[float, float, Any]:
    """Largest of losses and rewards, of gradients; and the rewards, [A]."""
    import torch
    from transformers import AutoModelForCausalLM

    from codepmp_ray.modeling.dropout import without_dropout
    from codepmp_ray.modeling.parity import GRADIENTS, differences
    from codepmp_ray.preference.packing import pack

    try:
        reference: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float64, attn_implementation="eager"
        )
    except ValueError:  # a family with one implementation
        reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    without_dropout(reference)
    pairs = make_pairs()
    for module in (reference, model.backbone):
        _expert_by_expert(module)
    model.double().train()
    found = differences(reference.train(), model, pairs)
    gradients = found.pop(GRADIENTS)
    with torch.no_grad():
        rewards = model(pack(pairs))["rewards"]
    return max(found.values()), gradients, rewards


def _expert_by_expert(module: Any) -> None:
    """The kernel for all experts at once has no fp64."""
    if getattr(module.config, "_experts_implementation", None) is not None:
        module.set_experts_implementation("eager")


def _export_difference(model: Any, rewards: Any, folder: Path) -> float:
    """Of the exported model's rewards, as our scorer and, where it can, transformers read it."""
    import torch

    from codepmp_ray.modeling.export import export_model
    from codepmp_ray.preference.tokenization import PromptTemplate
    from codepmp_ray.scoring.classifier import HeadedBase, load_classifier
    from codepmp_ray.scoring.torch_scorer import TorchScorer
    from codepmp_ray.storage import LocalStore
    from tests.tiny_models import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    template = PromptTemplate.from_tokenizer(tokenizer, "plain", append_eos=False)
    export_model(model.float(), tokenizer, template, LocalStore(folder), torch.float32)
    loaded = load_classifier(folder, torch.float64)
    _expert_by_expert(loaded.base_model)
    scorer = TorchScorer(loaded, max_model_len=512)
    worst = 0.0
    for pair, expected in zip(make_pairs(), rewards.view(-1, 2).tolist(), strict=True):
        found = scorer.rewards(pair.prompt, pair.answers)
        ways = [found]
        if not isinstance(loaded, HeadedBase):
            with torch.no_grad():
                rows = [torch.tensor([pair.prompt + s]) for s in pair.answers]
                ways.append([loaded(input_ids=row).logits.item() for row in rows])
        gaps = [abs(a - b) for way in ways for a, b in zip(way, expected, strict=True)]
        worst = max(worst, *gaps)
    return worst / float(rewards.abs().max())


def make_pairs() -> list[Any]:
    """Three pairs; no id is a special one of the shapes."""
    import torch

    from benchmarks._families import VOCABULARY
    from codepmp_ray.preference.items import EncodedItem

    generator = torch.Generator().manual_seed(7)
    pairs = []
    for number, lengths in enumerate([(7, 9, 14), (12, 5, 6), (3, 20, 4)]):
        ids = torch.randint(10, VOCABULARY, (sum(lengths),), generator=generator)
        parts = [part.tolist() for part in ids.split(lengths)]
        pairs.append(EncodedItem.of_pair(str(number), *parts, 0.1))
    return pairs


def look_at(families: Iterable[Family]) -> list[Row]:
    """A row for each; what ends in no error of ours counts as wrong."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    rows = []
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = look(family, Path(folder))
            except Exception as error:  # noqa: BLE001 - a row too
                text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                row = Row(family.name, family.models, WRONG, detail=text)
        print(f"{row.family}: {row.state} {row.detail}", file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def results_of(rows: list[Row]) -> list[dict[str, Any]]:
    results = []
    for state, metric in _METRICS.items():
        named = [row.family for row in rows if row.state == state]
        result: dict[str, Any] = one_result(
            metric, len(named), "families", _GOALS[state], num_families=len(rows), families=named
        )
        if state == PACKED:
            result |= {"met": len(named) >= 30, "rows": [asdict(row) for row in rows]}
        if state == WRONG:
            result["met"] = not named
        results.append(result)
    return results


def page(rows: list[Row]) -> str:
    """docs/families.md."""
    order = [PACKED, PLAIN, REFUSED, WRONG]
    lines = []
    for row in sorted(rows, key=lambda row: (order.index(row.state), row.family)):
        numbers = [
            f"{value:.0e}" if value is not None else "" for value in (row.losses, row.gradients)
        ]
        cells = [f"`{row.family}`", row.models, row.state, *numbers, row.export]
        lines.append(f"| {' | '.join(cells)} |")
    why = [
        f"- `{row.family}`: {row.detail.rstrip('.')}."
        for row in rows
        if row.detail and row.state in (PLAIN, REFUSED)
    ]
    return _HEAD + "\n".join(lines) + "\n\n## Why not packed\n\n" + "\n".join(why) + "\n"


def stored_rows() -> list[Row]:
    """Those of the last whole run."""
    results = json.loads((RESULTS / "train_family_parity.json").read_text())
    return [Row(**row) for result in results for row in result.get("rows", ())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="names of a few; without results and page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CODEPMP_CACHE"] = cache  # every family is compared anew
        if arguments.families:
            chosen = [each for each in FAMILIES if each.name in arguments.families]
            for row in look_at(chosen):
                print(json.dumps(asdict(row)))
            return
        rows = look_at(FAMILIES)
    DOCUMENT.write_text(page(rows))
    conclude("train_family_parity", results_of(rows))


if __name__ == "__main__":
    main()
