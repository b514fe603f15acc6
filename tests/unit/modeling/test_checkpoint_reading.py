"""What lies in a checkpoint's files and not in the model, for the trainer and the torch scorer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.errors import ModelError
from codepmp_ray.hub_models import HubModel, snapshot
from codepmp_ray.modeling.checkpoint_checks import require_trainable, require_unquantised
from codepmp_ray.modeling.export import export_model
from codepmp_ray.modeling.loading import empty_model, load_preference_model
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.tokenization import TEMPLATE_FILE, PromptTemplate
from codepmp_ray.scoring.exported_model import require_model
from codepmp_ray.scoring.torch_scorer import TorchScorer
from codepmp_ray.storage import LocalStore, open_store
from tests.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.slow

PMP, RM, SFT = (make_objective(name) for name in ("pmp", "rm", "sft"))
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
UP = "model.layers.0.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor]


def by_trainer(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(one weight of the backbone, the reward head) as loaded."""
    model = load_preference_model(str(folder), RM, seed=0)
    assert model.score is not None
    return model.backbone.layers[0].mlp.up_proj.weight, model.score.weight


def by_scorer(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    model = TorchScorer.load(folder, max_model_len=16)._model
    return model.model.layers[0].mlp.up_proj.weight, model.score.weight


both = pytest.mark.parametrize("load", [by_trainer, by_scorer])
Load = Callable[[Path], tuple[torch.Tensor, torch.Tensor]]


def config_of(**changes: Any) -> LlamaConfig:
    shape: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
    }
    return LlamaConfig(**shape | changes)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config_of(num_labels=1)).save_pretrained(
        folder / "reward"
    )
    AutoModelForCausalLM.from_config(config_of()).save_pretrained(folder / "causal")
    tied = AutoModelForCausalLM.from_config(config_of(tie_word_embeddings=True))
    tied.save_pretrained(folder / "tied")
    return {name: folder / name for name in ("reward", "causal", "tied")}


@pytest.fixture
def reward(saved: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved["reward"], tmp_path / "reward"))


@pytest.fixture
def causal(saved: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved["causal"], tmp_path / "causal"))


def change(folder: Path, **tensors: torch.Tensor | None) -> Tensors:
    """Replace, add or (None) remove tensors of the only file."""
    found = load_file(folder / FILE) | tensors
    kept = {key: tensor for key, tensor in found.items() if tensor is not None}
    save_file(kept, folder / FILE, metadata={"format": "pt"})
    return kept


def configure(folder: Path, **changes: Any) -> None:
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | changes))


def cut(folder: Path) -> Tensors:
    """The same weights in two files with an index."""
    whole = load_file(folder / FILE)
    (folder / FILE).unlink()
    places = {}
    for number, names in enumerate((sorted(whole)[::2], sorted(whole)[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: whole[name] for name in names}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return whole


@pytest.mark.parametrize(
    "facts",
    [
        *(
            {"quantization_config": {"quant_method": method, "bits": 8}}
            for method in ("fp8", "gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt")
        ),
        {"quantization": {"bits": 4, "group_size": 64}},
        {"compression_config": {"quant_method": "compressed-tensors"}},
    ],
    ids=str,
)
def test_quantised_configurations_are_refused_before_weights_are_read(
    reward: Path, facts: dict[str, Any]
) -> None:
    configure(reward, **facts)
    (reward / TEMPLATE_FILE).write_text("{}")
    (key,) = facts
    message = f"is quantised: its config.json has {key}.*Give the checkpoint in bf16"
    served = ServingConfig(engine="torch", max_model_len=16)
    for look in (
        by_trainer,
        by_scorer,
        lambda folder: require_trainable(str(folder), has_rewards=True),
        lambda folder: require_model(served, str(folder)),
    ):
        with pytest.raises(ModelError, match=message):
            look(reward)
    # vLLM has the kernels for it.
    require_model(ServingConfig(engine="vllm", max_model_len=16), str(reward))


def test_an_empty_note_on_quantisation_is_none(reward: Path) -> None:
    configure(reward, quantization_config=None, quantization={})
    require_trainable(str(reward), has_rewards=True)


def test_a_part_of_a_model_may_not_be_quantised_either() -> None:
    with pytest.raises(ModelError, match="has quantization_config fp8"):
        require_unquantised("m", {"text_config": {"quantization_config": {"quant_method": "fp8"}}})


@both
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [UP, "score.weight"])
def test_weights_that_are_no_numbers_by_themselves_are_refused(
    reward: Path, load: Load, dtype: torch.dtype, name: str
) -> None:
    change(reward, **{name: torch.ones_like(load_file(reward / FILE)[name]).to(dtype)})
    with pytest.raises(ModelError, match=rf"is quantised: {name} in {FILE} has the type [FIUB]"):
        load(reward)


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_floats_of_any_width_are_read(reward: Path, load: Load, dtype: torch.dtype) -> None:
    stored = {key: tensor.to(dtype) for key, tensor in load_file(reward / FILE).items()}
    save_file(stored, reward / FILE, metadata={"format": "pt"})
    weight, head = load(reward)
    assert weight.equal(stored[UP].float()) and head.equal(stored["score.weight"].float())


@both
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "pretrained_model."])
@pytest.mark.parametrize(
    "name",
    [
        "value_head.weight",
        "value_head",
        "v_head.summary.weight",
        "v_head.weight",
        "rm_head.weight",
        "rm_head",
        "reward_head.weight",
        "regression_head.weight",
    ],
)
def test_heads_of_other_trainers_are_taken_and_named(
    reward: Path, load: Load, name: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = change(reward, **{"score.weight": None, prefix + name: torch.full((1, 16), 0.5)})
    weight, head = load(reward)
    assert head.eq(0.5).all() and weight.equal(stored[UP])
    assert capsys.readouterr().err.count(f"the reward head is {prefix}{name} of {FILE}.\n") == 1


def test_a_value_head_on_a_causal_model_is_where_training_begins(causal: Path) -> None:
    change(causal, **{"v_head.summary.weight": torch.full((1, 16), 0.5)})
    assert by_trainer(causal)[1].eq(0.5).all()
    assert load_preference_model(str(causal), SFT, seed=0).score is None


def plain_head(**others: torch.Tensor) -> Tensors:
    return {"score.weight": torch.ones(1, 16), **others}


@both
@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"score.weight": None}, r"by its config.json, and its files have no score.weight\. Save"),
        (
            {"score.weight": None, "critic.weight": torch.ones(1, 16)},
            "no score.weight. Tensors of one row: critic.weight",
        ),
        ({"score.bias": torch.tensor([7.0])}, f"score.bias in {FILE} is not zero.*has no bias"),
        (
            {
                "score.weight": None,
                "rm_head.weight": torch.ones(1, 16),
                "rm_head.bias": torch.ones(1),
            },
            "rm_head.bias in .* is not zero",
        ),
        ({"value_head.weight": torch.ones(1, 16)}, "has 2 reward heads: score.weight, value_head"),
        ({"score.weight": torch.ones(2, 16)}, r"score.weight .*\(2, 16\).*\(1, 16\)"),
        ({"score.weight": None, "rm_head.weight": torch.ones(2, 16)}, r"rm_head.weight.*\(2, 16\)"),
        (
            {"score.weight": None, "score.0.weight": torch.ones(16, 16)},
            "its files have no score.weight",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    reward: Path, load: Load, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    change(reward, **tensors)
    with pytest.raises(ModelError, match=message):
        load(reward)


@both
@pytest.mark.parametrize("name", ["score", "v_head.summary"])
def test_a_bias_of_zero_is_none(reward: Path, load: Load, name: str) -> None:
    change(
        reward,
        **{
            "score.weight": None,
            f"{name}.weight": torch.ones(1, 16),
            f"{name}.bias": torch.zeros(1),
        },
    )
    assert load(reward)[1].eq(1).all()


@both
@pytest.mark.parametrize(
    "name",
    [
        "model.layers.7.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.weight_scale_inv",
        "model.layers.0.mlp.up_proj.lora_A.weight",
        "model.layers.0.mlp.up_proj.bias",
        "visual.merger.weight",
        "lm_head.scale",
    ],
)
def test_tensors_that_nobody_reads_are_refused(reward: Path, load: Load, name: str) -> None:
    change(reward, **{name: torch.ones(4, 4)})
    with pytest.raises(ModelError, match=rf"does not read: {name} \(F32 \[4, 4\] in {FILE}\)"):
        load(reward)


def test_what_is_stored_under_other_names_is_named_where_weights_are_missing(causal: Path) -> None:
    change(causal, **{UP: None, UP.replace(".weight", ".base_layer.weight"): torch.ones(2)})
    message = "no weights for layers.0.mlp.up_proj.weight; its files have .*base_layer.*merge"
    with pytest.raises(ModelError, match=message):
        by_trainer(causal)


@both
@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight", "model.inv_freq"]
)
def test_known_remnants_are_harmless(reward: Path, load: Load, name: str) -> None:
    change(reward, **{name: torch.ones(4)})
    load(reward)


def test_a_head_that_the_objective_has_no_use_for_is_harmless(causal: Path) -> None:
    change(causal, **plain_head(), **{"lm_head.bias": torch.ones(3)})
    by_trainer(causal)  # without lm_head
    with pytest.raises(ModelError, match=r"does not read: lm_head\.bias"):
        load_preference_model(str(causal), SFT, seed=0)
    change(causal, **{"lm_head.bias": None})
    load_preference_model(str(causal), SFT, seed=0)  # without score


def test_a_tied_lm_head_may_be_stored_but_not_differ(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved["tied"], tmp_path / "tied"))
    embeddings = load_file(folder / FILE)["model.embed_tokens.weight"]
    change(folder, **{"lm_head.weight": embeddings.clone()})
    empty_model(str(folder), PMP)
    change(folder, **{"lm_head.weight": embeddings * 2})
    empty_model(str(folder), RM)
    with pytest.raises(ModelError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        empty_model(str(folder), PMP)


@both
@pytest.mark.parametrize("name", ["aa.safetensors", "model-00003.safetensors", "zz.safetensors"])
@pytest.mark.parametrize("with_index", [True, False])
def test_files_that_are_not_listed_are_named_and_never_win(
    reward: Path,
    load: Load,
    name: str,
    with_index: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = cut(reward) if with_index else load_file(reward / FILE)
    save_file({key: tensor * 9 for key, tensor in whole.items()}, reward / name)
    weight, head = load(reward)
    assert weight.equal(whole[UP]) and head.equal(whole["score.weight"])
    line = f"not read: {name}; the weights are those of {INDEX if with_index else FILE}.\n"
    assert capsys.readouterr().err.count(line) == 1


def test_an_index_wins_over_the_single_file_only_where_all_readers_agree(reward: Path) -> None:
    whole = cut(reward)
    save_file({key: tensor * 9 for key, tensor in whole.items()}, reward / FILE, {"format": "pt"})
    assert by_trainer(reward)[0].equal(whole[UP])
    with pytest.raises(ModelError, match=r"transformers reads the one, vLLM .* Delete"):
        by_scorer(reward)


def break_index(folder: Path, how: str) -> None:
    facts = json.loads((folder / INDEX).read_text())
    first = sorted(folder.glob("*.safetensors"))[0]
    if how == "file gone":
        first.unlink()
    elif how == "no JSON":
        (folder / INDEX).write_text("{")
    elif how == "empty":
        (folder / INDEX).write_text('{"weight_map": {}}')
    elif how == "tensor gone":
        facts["weight_map"]["model.norm.bias"] = first.name
        (folder / INDEX).write_text(json.dumps(facts))
    elif how == "twice":
        second = sorted(folder.glob("*.safetensors"))[1]
        save_file(load_file(second) | {UP: load_file(folder / facts["weight_map"][UP])[UP]}, second)
        save_file(load_file(first) | {UP: torch.ones(24, 16)}, first)
    elif how == "cut":
        first.write_bytes(first.read_bytes()[:-1])
    elif how == "adapter":
        (folder / "adapter_config.json").write_text("{}")


@both
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("file gone", f"has no model-00001-of-00002.safetensors, which its {INDEX} lists"),
        ("no JSON", f"cannot be loaded: {INDEX}"),
        ("empty", f"{INDEX} lists no file"),
        ("tensor gone", f"model-00001-of-00002.safetensors has no model.norm.bias, which {INDEX}"),
        ("twice", f"{UP} is in model-00001.* and in model-00002"),
        ("cut", "cannot be loaded: model-00001-of-00002.safetensors: it ends before"),
        ("adapter", r"adapter \(adapter_config.json\) that is not merged.*merge_and_unload"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    reward: Path, load: Load, how: str, message: str
) -> None:
    cut(reward)
    break_index(reward, how)
    with pytest.raises(ModelError, match=message):
        load(reward)


def test_shards_without_an_index_are_read_if_whole(reward: Path) -> None:
    whole = cut(reward)
    (reward / INDEX).unlink()
    assert by_trainer(reward)[0].equal(whole[UP])
    del whole[UP]
    for file in reward.glob("*.safetensors"):
        save_file({key: t for key, t in load_file(file).items() if key in whole}, file)
    with pytest.raises(ModelError, match="no weights for"):
        by_trainer(reward)


def test_a_head_in_a_file_of_its_own_is_not_lost(causal: Path) -> None:
    save_file({"v_head.summary.weight": torch.ones(1, 16)}, causal / "value_head.safetensors")
    with pytest.raises(ModelError, match=f"in value_head.safetensors, which is not .*{FILE}"):
        by_trainer(causal)
    load_preference_model(str(causal), SFT, seed=0)


@pytest.mark.parametrize(
    ("names", "unwanted"),
    [
        ([INDEX, "model-1.safetensors"], ["consolidated.safetensors", FILE]),
        ([FILE, "value_head.safetensors"], ["consolidated.safetensors"]),
        (["other.safetensors"], []),
    ],
)
def test_only_what_will_be_read_is_downloaded_of_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], unwanted: list[str]
) -> None:
    index = {"weight_map": {"a": "model-1.safetensors"}}
    target = tmp_path / ("c0ffee" * 7)[:40]

    def snapshot_download(name: str, *, allow_patterns: list[str] | str, revision: str) -> str:
        assert (name, revision) == ("me/model", target.name)
        target.mkdir(exist_ok=True)
        for file in ["config.json", *names, *unwanted]:
            patterns = [allow_patterns] if isinstance(allow_patterns, str) else allow_patterns
            if any(Path(file).match(pattern) for pattern in patterns):
                (target / file).write_text(json.dumps(index))
        return str(target)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    folder = snapshot(HubModel("me/model", target.name))
    assert {path.name for path in folder.iterdir()} == {"config.json", *names}


def test_the_demonstrations_weights_are_whole() -> None:
    name = "builtin:smollm2-135m-instruct"
    require_trainable(name, has_rewards=True)
    for objective in (PMP, RM, SFT):
        empty_model(name, objective)


def test_a_store_is_asked_for_headers_and_nothing_is_fetched(
    reward: Path, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEPMP_CACHE", str(tmp_path / "cache"))
    uri = f"{s3_bucket}/a run/foreign"
    change(reward, **{"score.weight": None, "rm_head.weight": torch.ones(1, 16)})
    whole = cut(reward)
    for path in reward.iterdir():
        open_store(uri).put(path.name, path.read_bytes())
    require_trainable(uri, has_rewards=True)
    assert not (tmp_path / "cache").exists()
    model = load_preference_model(uri, RM, seed=0)
    assert model.score is not None and model.score.weight.eq(1).all()
    assert model.backbone.layers[0].mlp.up_proj.weight.equal(whole[UP])
    open_store(uri).delete("model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match="has no model-00001-of-00002"):
        require_trainable(uri, has_rewards=True)


def test_exports_in_several_files_are_whole(causal: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    template = PromptTemplate.from_tokenizer(tokenizer, "chat", append_eos=True)
    model = load_preference_model(str(causal), PMP, seed=3)
    folder = tmp_path / "exported"
    export_model(model, tokenizer, template, LocalStore(folder), torch.bfloat16, 4000)
    assert (folder / INDEX).is_file()
    assert model.score is not None
    for load in (by_trainer, by_scorer):
        assert load(folder)[1].equal(model.score.weight.to(torch.bfloat16).float())
    require_trainable(str(folder), has_rewards=True)
