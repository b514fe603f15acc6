"""serving.require_audit: every way of serving asks, for the weights that are there, completely."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from codepmp_ray.config.recipe import Recipe, parse_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.audit.run import audit, folder_of
from codepmp_ray.evaluation.audit.served import require_passed_audit, with_own_audit
from codepmp_ray.evaluation.pairwise.pairs import load_pairs
from codepmp_ray.serve import application
from codepmp_ray.serve.application import build_app, build_application
from codepmp_ray.weights_digest import weights_digest
from tests.tiny_models import save_tiny_reward_model
from tests.unit.evaluation.test_audit_job import EDITS, RewardOf, honest

KEY = "0" * 64


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture
def recipe(tmp_path: Path, exported: Path) -> Recipe:
    rows = [
        {"prompt": f"3 + {i}?", "chosen": f"So.\nIt is 7{' so' * (i % 3)}.",
         "rejected": f"So.\nIt is 8{' so' * (i % 4)}."}
        for i in range(24)
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tmp_path / "model"
    model.mkdir()
    for file in exported.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    fields = {
        "run_dir": str(tmp_path / "run"),
        "accuracy": {"data": [{"path": str(tmp_path / "pairs.jsonl")}]},
        "audit": {"edits": EDITS, "max_over_optimisation": None},
        "evaluation": {"num_bootstrap": 200},
        "serving": {"model_path": str(model), "engine": "torch", "require_audit": True,
                    "max_model_len": 512, "num_gpus": 0},
    }  # fmt: skip
    return parse_recipe(fields, "test")


def _audited(recipe: Recipe) -> str:
    """Where the audit of the recipe's model lies."""
    audit(recipe, load_pairs(recipe.accuracy), [], RewardOf(honest), recipe.serving.model_path)
    return f"{recipe.run_dir}/{folder_of(recipe)}/audit.json"


def _with(recipe: Recipe, section: str, **changes: object) -> Recipe:
    changed = getattr(recipe, section).model_copy(update=changes)
    return recipe.model_copy(update={section: changed})


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the gate comes the cluster, which is not there."""

    def reached(*_: object) -> float:
        raise ArithmeticError("past the gate")

    monkeypatch.setattr(application, "require_needs", reached)


def test_a_deployed_application_asks_too(recipe: Recipe, built: None) -> None:
    args = recipe.serving.model_dump(mode="json") | {"api_key_sha256": [KEY]}
    with pytest.raises(ConfigError, match=r"serving.audit_file is not"):
        build_app(args)
    with pytest.raises(InputError, match="holds no audit of this model"):
        build_app(args | {"audit_file": f"{recipe.run_dir}/nowhere/audit.json"})
    place = _audited(recipe)
    with pytest.raises(ArithmeticError, match="past the gate"):
        build_app(args | {"audit_file": place})
    with pytest.raises(ArithmeticError, match="past the gate"):
        build_app(args | {"require_audit": False})
    # A recipe's own limits hold, where they are given.
    config = with_own_audit(recipe)
    assert config.audit_file == place
    strict = recipe.audit.model_copy(update={"strict": True})
    with pytest.raises(InputError, match="does not pass its audit: gain by padding"):
        build_application(config, str(config.model_path), [KEY], limits=strict)


def test_other_weights_at_the_old_path_have_no_audit(recipe: Recipe, built: None) -> None:
    place = _audited(recipe)
    require_passed_audit(recipe)
    weights = Path(str(recipe.serving.model_path)) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(InputError, match="holds no audit of this model"):
        require_passed_audit(recipe)
    args = recipe.serving.model_dump(mode="json") | {"api_key_sha256": [KEY]}
    with pytest.raises(InputError, match="the audit of other weights"):
        build_app(args | {"audit_file": place})


def test_what_was_not_measured_is_refused_with_its_remedy(recipe: Recipe) -> None:
    asked = _with(recipe, "audit", edits=(*EDITS, "code_comments"), max_over_optimisation=0.02)
    _audited(asked)
    with pytest.raises(InputError, match="did not measure code_comments, over-optimisation") as e:
        require_passed_audit(asked)
    assert "leave it out of audit.edits" in str(e.value) and "codepmp eval bon" in str(e.value)
    with pytest.raises(InputError, match=r"did not measure code_comments\."):
        require_passed_audit(_with(asked, "audit", max_over_optimisation=None))
    named = _with(asked, "audit", max_over_optimisation=None, max_generator_r2=0.1)
    with pytest.raises(InputError, match=r"code_comments, variance by generator.*audit\.pools"):
        require_passed_audit(named)


def test_an_audit_that_names_no_weights_or_is_damaged_is_refused(recipe: Recipe) -> None:
    place = Path(_audited(recipe))
    record = json.loads(place.read_text())
    for text, words in (
        (json.dumps(record | {"model_digest": None}), "does not say which weights"),
        (json.dumps(record | {"figures": {}}), "is no audit"),
        ("[]", "is no audit"),
        ("{", "cannot be read"),
    ):
        place.write_text(text)
        with pytest.raises(InputError, match=words):
            require_passed_audit(recipe)


def test_a_digest_changes_with_any_tensor_and_not_with_the_place(tmp_path: Path) -> None:
    big, head = 6_000_000, 2_000
    table = {"a": {"data_offsets": [0, big]}, "head": {"data_offsets": [big, big + head]}}
    header = json.dumps(table).encode()

    def write(name: str, body: bytes, file: str = "model.safetensors") -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_bytes(struct.pack("<Q", len(header)) + header + body)
        (folder / "config.json").write_text("{}")
        return weights_digest(str(folder))

    first = write("one", bytes(big + head))
    assert write("copy", bytes(big + head)) == first
    in_head = bytearray(big + head)
    in_head[big + head // 2] = 1
    others = [
        write("head", bytes(in_head)),
        write("large", b"\1" * big + bytes(head)),
        write("shorter", bytes(big + head - 1)),
        write("renamed", bytes(big + head), "other.safetensors"),
    ]
    assert len({first, *others}) == 5
    (tmp_path / "copy" / "config.json").write_text("[]")
    assert weights_digest(str(tmp_path / "copy")) not in {first, *others}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"\xff" * 5_000_000)
    with pytest.raises(InputError, match=r"model.safetensors cannot be read"):
        weights_digest(str(tmp_path / "bad"))
