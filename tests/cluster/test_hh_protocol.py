"""The protocol of HH-RLHF by method with an OPT: trained, answered, judged by another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from codepmp_ray.cluster.study_run import run_study
from codepmp_ray.config.studies import load_studies
from codepmp_ray.scoring.torch_scorer import TorchScorer
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.outcome import Outcome
from tests.tiny_models import tiny_tokenizer
from tests.unit.studies.test_external_scorer import save_tiny_deberta

pytestmark = [
    pytest.mark.rehearsal,
    pytest.mark.skipif(torch.cuda.is_available(), reason="trains in process without a GPU"),
]
RECIPE = Path(__file__).resolve().parents[2] / "jobs/recipes/studies/seed004-opt350m.yaml"


def _save_opt(folder: Path) -> Path:
    """OPT-350M's build: norms after blocks, embeddings narrower than blocks; no chat template."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=2, word_embed_proj_dim=16, do_layer_norm_before=False,
        max_position_embeddings=512, **special,
    )  # fmt: skip
    torch.manual_seed(0)
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _write(folder: Path, name: str, word: str) -> str:
    talk = "\n\nHuman: {} {}?\n\nAssistant: Yes.\n\nHuman: Sure?\n\nAssistant:"
    single = "\n\nHuman: {} {}?\n\nAssistant:"
    rows = [
        {side: (talk if i % 2 else single).format(word, i) + f" {text} {i}." for side, text in
         (("chosen", "A kind answer"), ("rejected", "Nothing"))}
        for i in range(40)
    ]  # fmt: skip
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("hh protocol")
    paths = {name: _write(folder, f"{name}.jsonl", name) for name in ("hh", "harmless", "helpful")}
    overrides: dict[str, Any] = {
        "run_dir": str(folder / "run"),
        "data_dir": str(folder),
        "models.opt-350m.model_name_or_path": str(_save_opt(folder / "opt-350m")),
        "studies.seed004.scorer": str(save_tiny_deberta(folder / "scorer")),
        **{f"sets.{name}.paths": [path] for name, path in paths.items()},
        "code_pairs": ["stdlib"],
        "pmp_pairs": 16,
        "num_bootstrap": 100,
        "studies.seed004.prompt_filter": {"harmless": {"max_turns": 1}},
        "studies.seed004.num_rft_prompts": 16,
    }
    overrides |= {f"studies.seed004.{key}": value for key, value in {
        "num_train": 24, "num_test": 12, "num_prompts": 4, "max_new_tokens": 6, "seeds": 1,
    }.items()}  # fmt: skip
    for name in ("warmup", "pmp", "rm", "dpo"):
        overrides |= {
            f"{name}.batch_size": 8, f"{name}.use_gpu": False, f"{name}.num_workers": 1,
            f"{name}.max_length": 512, f"{name}.bf16": False,
        }  # fmt: skip
    texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return Bench(load_studies(RECIPE, texts))


def test_the_protocol_runs_with_an_opt_and_says_who_judged_what(bench: Bench) -> None:
    record = run_study(STUDIES["seed004"], bench, alone=True)
    outcome = Outcome.from_json(record["outcome"])
    assert outcome.status == "measured"
    _, answers = outcome.tables
    assert [row.label for row in answers.rows] == ["base", "SFT", "DPO", "SFT + DPO", "RFT"]
    # Without the folder's place on this machine.
    assert answers.title == "Mean reward of greedy answers, by scorer"
    assert any(text.endswith("new tokens; scored by scorer.") for text in outcome.differs)
    assert any("with at most 1 turns" in text for text in outcome.differs)
    assert (
        "Trained on 24 pairs (HH-RLHF, training part), RFT on 16 of their prompts; the protocol's "
        "set has about 160,000."
    ) in outcome.differs
    assert "HH-RLHF helpful-base: 4 prompts, unfiltered." in outcome.differs
    assert not any("OPT-350M being the protocol's" in text for text in outcome.differs)


def test_policies_are_exported_as_opt_and_rewards_read_at_its_width(bench: Bench) -> None:
    run_study(STUDIES["seed004"], bench, alone=True)  # found again
    records = {
        folder.parent: json.loads(folder.read_text())
        for folder in Path(bench.run_dir).glob("trainings/*/training.json")
    }
    assert {record["objective"] for record in records.values()} == {"sft", "dpo", "rm", "pmp"}
    ids = list(range(20, 30))
    for folder, record in records.items():
        if record["objective"] == "rm":
            scorer = TorchScorer.load(folder / "model", 512)
            assert scorer._model.score.weight.shape == (1, 16)
            assert scorer.rewards(ids, [[7, 8, 9]])[0] != 0.0
        elif record["objective"] == "dpo":
            assert type(AutoModelForCausalLM.from_pretrained(folder / "model")) is OPTForCausalLM
