"""Checkpoints as the hub has them: experts apart, other names; read, exported, read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks._families import Family, family
from benchmarks.train_family_parity import make_pairs
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ConfigError, ModelError
from codepmp_ray.modeling.export import export_model, require_exportable
from codepmp_ray.modeling.loading import load_config, load_preference_model
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.modeling.paths import random_model
from codepmp_ray.preference.packing import pack
from codepmp_ray.preference.tokenization import PromptTemplate
from codepmp_ray.scoring.classifier import load_classifier
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.scoring.torch_scorer import TorchScorer
from codepmp_ray.storage import LocalStore
from tests.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.slow

PMP, RM = make_objective("pmp"), make_objective("rm")


def save(name: str, folder: Path, **settings: object):
    model = random_model(family(name).config())
    model.save_pretrained(folder, **settings)
    return model


def export(model, folder: Path, max_file_bytes: int = 10**9) -> None:
    tokenizer = tiny_tokenizer()
    template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
    store = LocalStore(folder)
    export_model(model, tokenizer, template, store, torch.float32, max_file_bytes)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    files = [load_file(file) for file in folder.glob("model*.safetensors")]
    return {key: value for tensors in files for key, value in tensors.items()}


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_neox", "deepseek_v2"])
def test_weights_are_those_of_transformers_and_exported_as_they_were_stored(
    name: str, tmp_path: Path
) -> None:
    theirs = save(name, tmp_path / "base", max_shard_size="40KB")
    base = stored(tmp_path / "base")
    assert {*base} != {*theirs.state_dict()}  # laid out otherwise than in memory
    ours = load_preference_model(str(tmp_path / "base"), PMP, seed=1)
    expected = theirs.base_model.state_dict()
    found = ours.backbone.state_dict()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.equal(value, expected[key]), key

    export(ours, tmp_path / "rm", max_file_bytes=40_000)
    exported = stored(tmp_path / "rm")
    prefix = theirs.base_model_prefix
    kept = {key for key in base if key.startswith(prefix)}
    assert {*exported} == kept | {"score.weight"}
    assert all(torch.equal(exported[key], base[key]) for key in kept)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    pair = make_pairs()[0]
    rewards = ours.eval()(pack([pair]))["rewards"]
    logit = plain(torch.tensor([pair.prompt + pair.answers[0]])).logits.item()
    assert logit == pytest.approx(rewards[0].item(), abs=1e-4)
    again = load_preference_model(str(tmp_path / "rm"), RM, seed=9)
    assert torch.equal(again(pack([pair]))["rewards"], rewards)


def test_buffers_stored_under_other_names_are_read(tmp_path: Path) -> None:
    """A router's correction is no parameter, and the hub calls it otherwise."""
    theirs = random_model(Family("minimax_m2", "", family("qwen3_moe").changes).config())
    for name, buffer in theirs.named_buffers():
        if "correction" in name:
            buffer.normal_()
    theirs.save_pretrained(tmp_path)
    ours = load_preference_model(str(tmp_path), PMP, seed=1).backbone.state_dict()
    expected = theirs.base_model.state_dict()
    corrections = [key for key in expected if "correction" in key]
    assert corrections and not {*stored(tmp_path)} & {f"model.{key}" for key in corrections}
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_an_expert_that_is_missing_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    save("qwen3_moe", tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    key = "model.layers.1.mlp.experts.2.down_proj.weight"
    for tensors in ({k: v for k, v in whole.items() if k != key}, whole | {key: torch.ones(3, 5)}):
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"layers.1.mlp.experts(.|\n)*download or export"):
            load_preference_model(str(tmp_path), RM, seed=1)


def test_the_text_part_of_a_model_of_texts_and_images_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = family("gemma3_text").config()
    vision = dict.fromkeys(("hidden_size", "intermediate_size"), 32)
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(config)
    whole.save_pretrained(tmp_path)
    assert load_config(str(tmp_path)).model_type == "gemma3_text"
    ours = load_preference_model(str(tmp_path), PMP, seed=1)
    assert "only the text part (gemma3_text) of gemma3" in capsys.readouterr().err
    ids = torch.tensor([make_pairs()[0].prompt + make_pairs()[0].answers[0]])
    expected = whole.eval()(input_ids=ids).logits
    hidden = ours.eval()(pack(make_pairs()[:1]))
    nll = torch.nn.functional.cross_entropy(
        expected[0, len(make_pairs()[0].prompt) - 1 : -1],
        torch.tensor(make_pairs()[0].answers[0]),
        reduction="sum",
    )
    assert hidden["lm"].item() == pytest.approx(nll.item(), rel=1e-5)


class TestFamilyWithoutAClass:
    """Granite: transformers has no GraniteForSequenceClassification."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("granite")
        save("granite", folder / "base")
        model = load_preference_model(str(folder / "base"), PMP, seed=1)
        assert "other programs, vLLM among them, do not" in require_exportable(model)
        export(model, folder / "rm")
        return folder

    def test_our_scorer_and_trainings_read_base_and_head(self, folder: Path) -> None:
        model = load_preference_model(str(folder / "base"), PMP, seed=1).eval()
        pair = make_pairs()[0]
        rewards = model(pack([pair]))["rewards"]
        scorer = TorchScorer(load_classifier(folder / "rm", torch.float32), 512)
        found = scorer.rewards(pair.prompt, pair.answers)
        assert found == pytest.approx(rewards.tolist(), abs=1e-5)
        again = load_preference_model(str(folder / "rm"), RM, seed=9)
        assert torch.equal(again(pack([pair]))["rewards"], rewards)

    def test_the_base_is_a_plain_model(self, folder: Path) -> None:
        from transformers import AutoModel

        _, info = AutoModel.from_pretrained(folder / "rm", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert [*load_file(folder / "rm/reward_head.safetensors")] == ["score.weight"]

    def test_vllm_is_refused_at_the_start(self, folder: Path) -> None:
        require_model(ServingConfig(engine="torch", max_model_len=64), str(folder / "rm"))
        with pytest.raises(ConfigError, match=r"reward_head.safetensors(.|\n)*engine=torch"):
            require_model(ServingConfig(engine="vllm", max_model_len=64), str(folder / "rm"))

    def test_an_objective_with_an_lm_head_is_refused(self, folder: Path, tmp_path: Path) -> None:
        config = family("granite").config()
        config.tie_word_embeddings = False
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
        model = load_preference_model(str(tmp_path / "base"), PMP, seed=1)
        export(model, tmp_path / "rm")
        with pytest.raises(ModelError, match="without an LM head, which the objective pmp needs"):
            load_preference_model(str(tmp_path / "rm"), PMP, seed=1)
