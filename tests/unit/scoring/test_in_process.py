"""A file scored in this process, by our exports and by reward models of others."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from codepmp_ray.command import serving as command
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import ConfigError, InputError, ModelError
from codepmp_ray.preference.tokenization import TEMPLATE_FILE, Encoder, PromptTemplate
from codepmp_ray.scoring.best_of_n import best_of_n
from codepmp_ray.scoring.exported_model import require_model, suited
from codepmp_ray.scoring.in_process import write_rows
from codepmp_ray.scoring.torch_scorer import TorchScorer
from tests.tiny_models import plain_transformers_score, save_tiny_reward_model, tiny_tokenizer

ROWS = [
    {"id": "a", "prompt": "Add one.", "candidates": ["x + 1", "x - 1"]},
    {"id": "b", "prompt": "No answers.", "candidates": []},
    {"id": "c", "messages": [{"role": "user", "content": "Hi"}], "candidates": ["Hello", "Ho"]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("models") / "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As others save one: nothing of ours beside the weights."""
    folder = save_tiny_reward_model(tmp_path_factory.mktemp("models") / "theirs")
    (folder / TEMPLATE_FILE).unlink()
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def score(*words: str, overrides: tuple[str, ...] = (), output: Path | None = None) -> dict:
    return command.score(load_recipe(None, list(overrides)), list(words), None, output)


def test_rows_are_scored_as_by_best_of_n_and_rejects_are_counted(
    model: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = score(str(model), str(file))
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [row["row_id"] for row in rows] == ["a", "b", "c"]
    assert rows[1]["reject_reason"] == "no_candidates" and "scores" not in rows[1]
    expected = asyncio.run(
        best_of_n(
            Encoder.load(model), TorchScorer.load(model, 512), "Add one.", ROWS[0]["candidates"]
        )
    )
    assert rows[0]["scores"] == [candidate.score for candidate in expected.candidates]
    assert rows[0]["best_index"] == expected.best_index and len(rows[2]["scores"]) == 2
    assert counts == {
        "num_rows": 3, "num_candidates": 4, "rejected_by_reason": {"no_candidates": 1},
    }  # fmt: skip
    assert "4 candidates of 2 of 3 rows scored" in shown.err
    assert "rejected: 1 no_candidates" in shown.err


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_is_written_whole(model: Path, file: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / "new" / f"rewards{suffix}"
    score(str(model), str(file), output=output)
    if suffix == ".parquet":
        rows = pq.read_table(output).to_pylist()
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row.get("reject_reason") for row in rows] == [None, "no_candidates", None]
    assert [path.name for path in output.parent.iterdir()] == [output.name]

    def broken():
        yield rows[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_rows(broken(), output.with_name(f"other{suffix}"), sys.stdout)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_a_model_of_others_is_read_as_transformers_reads_it(
    foreign: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score(str(foreign), str(file))
    shown = capsys.readouterr()
    assert "the model's own chat template" in shown.err
    row = json.loads(shown.out.splitlines()[0])
    tokenizer = tiny_tokenizer()
    for text, found in zip(ROWS[0]["candidates"], row["scores"], strict=True):
        talk = [
            {"role": "user", "content": ROWS[0]["prompt"]},
            {"role": "assistant", "content": text},
        ]
        ids = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
        assert found == pytest.approx(plain_transformers_score(foreign, ids), abs=1e-5)


def test_a_model_without_a_chat_template_gets_plain_prompts(foreign: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    made = PromptTemplate.of_model(tokenizer)
    assert (made.kind, made.append_eos, made.closing) == ("plain", True, "")
    hidden = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    tokenizer.chat_template = hidden
    with pytest.raises(ModelError, match="chat template"):
        PromptTemplate.of_model(tokenizer)


def test_the_closing_is_kept_where_there_is_one_and_in_no_other_file() -> None:
    made = PromptTemplate.of_model(tiny_tokenizer())
    assert made.closing == "<|im_end|>\n"
    assert PromptTemplate.from_json(made.to_json()) == made
    ours = PromptTemplate.from_tokenizer(tiny_tokenizer(), "chat", append_eos=True)
    assert "closing" not in ours.to_json()


def test_settings_that_nobody_gave_suit_the_model(model: Path, foreign: Path) -> None:
    plain = ServingConfig(engine="torch")
    assert suited(plain, str(model)).max_model_len == 512  # of the model
    assert suited(plain, str(model)).template == "recorded"
    assert suited(plain, str(foreign)).template == "own"
    given = ServingConfig(engine="torch", max_model_len=64, template="recorded")
    assert suited(given, str(foreign)) == given
    with pytest.raises(InputError, match=r"serving\.template=own"):
        require_model(given, str(foreign))
    require_model(given.model_copy(update={"template": "own"}), str(foreign))


def test_what_cannot_be_scored_is_refused_before_a_row(
    model: Path, file: Path, tmp_path: Path
) -> None:
    stream = io.StringIO()
    with pytest.raises(ConfigError, match=r"rewards\.csv: \.csv is no format"):
        write_rows(iter([]), tmp_path / "rewards.csv", stream)
    with pytest.raises(ConfigError, match=r"serving\.engine=vllm needs a recipe"):
        score(str(model), str(file), overrides=("serving.engine=vllm",))
    with pytest.raises(InputError, match="does not exist"):
        score(str(model), str(tmp_path / "absent.jsonl"))
    with pytest.raises(InputError, match=r"it has no config\.json"):
        score(str(tmp_path), str(file))
