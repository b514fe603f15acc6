"""Rows are tokenised once, read alike by all ranks, and all accounted for."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import CodePMPError, InputError, StorageError
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.preference.encoding import encode_pair, encode_pairs
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.tokenization import Encoder, PromptTemplate
from codepmp_ray.storage import LocalStore
from codepmp_ray.training.data import TrainingData, load_items
from codepmp_ray.training.task import InputShard, TrainingTask
from codepmp_ray.training.token_shards import encoding_key, is_held_out
from tests.tiny_models import tiny_tokenizer

Row = dict[str, Any]


def make_encoder(kind: str = "chat") -> Encoder:
    tokenizer = tiny_tokenizer()
    return Encoder(tokenizer, PromptTemplate.from_tokenizer(tokenizer, kind, True))


ENCODER = make_encoder()


def make_task(out_dir: Path, rows: list[Row], per_shard: int = 10, **settings: Any) -> TrainingTask:
    fields = {"max_length": 256, "max_tokens_per_micro_batch": 512, "eval_fraction": 0.2}
    inputs = tuple(
        InputShard("run", json.dumps(part := rows[start : start + per_shard]), partial(list, part))
        for start in range(0, len(rows), per_shard)
    )
    config = TrainingConfig.model_validate({**fields, **settings})
    return TrainingTask("pretraining", config, "unused", inputs, str(out_dir))


def load(task: TrainingTask, num_ranks: int = 1, encoder: Encoder = ENCODER) -> TrainingData:
    """What rank 0 has, after the other ranks have done their part, one after the other."""

    def gather_alone(value: Any) -> list[Any]:
        if value is not None:
            raise value
        raise _NotYet

    for rank in range(1, num_ranks):
        with pytest.raises(_NotYet):
            load_items(task, encoder, rank, num_ranks, gather_alone)
    return load_items(task, encoder, 0, num_ranks, lambda value: [value])


class _NotYet(Exception):
    """The rank has encoded its shards and waits."""


def table(task: TrainingTask, name: str) -> list[Row]:
    return ShardLedger(LocalStore(task.out_dir)).read(name).to_pylist()


def test_pairs_are_those_that_the_encoder_makes_in_the_order_of_the_rows(
    tmp_path: Path, preference_rows: list[Row]
) -> None:
    rows = [{**row, "margin": 0.1 * i} for i, row in enumerate(preference_rows)]
    task = make_task(tmp_path, rows)
    data = load(task)
    direct = [encode_pair(row, ENCODER, 256, "reject") for row in rows]
    held_out = [is_held_out(row, task.config) for row in rows]
    pairs = list(zip(direct, held_out, strict=True))
    assert list(data.train) == [pair for pair, is_out in pairs if not is_out]
    assert list(data.held_out) == [pair for pair, is_out in pairs if is_out]
    assert 0 < len(data.held_out) < len(rows)
    assert data.train[2:4] == [data.train[2], data.train[3]]


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_any_number_of_ranks_reads_the_same(
    tmp_path: Path, preference_rows: list[Row], num_ranks: int
) -> None:
    alone = make_task(tmp_path / "alone", preference_rows)
    together = make_task(tmp_path / "together", preference_rows)
    one, many = load(alone), load(together, num_ranks)
    assert list(many.train) == list(one.train) and list(many.held_out) == list(one.held_out)
    files = sorted(file.name for file in (tmp_path / "alone/tokens").rglob("*.arrow"))
    assert files == ["00000.arrow", "00001.arrow", "00002.arrow"]
    key = encoding_key(ENCODER, alone.config)
    for name in files:
        one_file, other = (Path(t.out_dir) / "tokens" / key / name for t in (alone, together))
        assert one_file.read_bytes() == other.read_bytes()
    assert table(together, "used") == table(alone, "used")


def test_each_rank_encodes_its_share_and_no_more(
    tmp_path: Path, preference_rows: list[Row]
) -> None:
    task = make_task(tmp_path, preference_rows, per_shard=6)

    def gather(value: Any) -> list[Any]:
        raise _NotYet

    with pytest.raises(_NotYet):
        load_items(task, ENCODER, 1, 3, gather)
    assert [file.name for file in (tmp_path / "tokens").rglob("*.arrow")] == ["00001.arrow"]


def test_tokens_are_made_once_and_damage_is_made_good(
    tmp_path: Path, preference_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tmp_path, preference_rows)
    first = list(load(task).train)
    folder = tmp_path / "tokens" / encoding_key(ENCODER, task.config)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    encoded: list[Any] = []
    monkeypatch.setattr(
        "codepmp_ray.training.token_shards.encode_pairs",
        lambda rows, *rest: encoded.extend(rows) or encode_pairs(rows, *rest),
    )
    assert list(load(task).train) == first and encoded == []
    flipped = bytearray(whole["00000.arrow"])
    flipped[len(flipped) // 2] ^= 1
    damages = {
        "one bit": ("00000.arrow", bytes(flipped), 10),
        "cut off": ("00001.arrow", whole["00001.arrow"][:-100], 10),
        "killed before the record": ("00002.json", None, 4),
        "record of another input": (
            "00000.json",
            whole["00000.json"].replace(b'"input": "[', b'"input": "{'),
            10,
        ),
        "no record at all": ("00001.json", b"[", 10),
    }
    for what, (name, content, num_rows) in damages.items():
        if content is None:
            (folder / name).unlink()
        else:
            assert content != whole[name]
            (folder / name).write_bytes(content)
        encoded.clear()
        assert list(load(task, num_ranks=2).train) == first, what
        assert len(encoded) == num_rows, what
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole, what


def test_rows_that_change_under_a_begun_stage_are_refused(
    tmp_path: Path, preference_rows: list[Row]
) -> None:
    load(make_task(tmp_path, preference_rows))
    with pytest.raises(StorageError, match="its rows have changed"):
        load(make_task(tmp_path, preference_rows[:-1]))


def test_what_gives_other_tokens_has_another_key(preference_rows: list[Row]) -> None:
    def key(encoder: Encoder = ENCODER, **settings: Any) -> str:
        return encoding_key(encoder, make_task(Path("x"), preference_rows, **settings).config)

    other_words = make_encoder()
    other_words.tokenizer.add_tokens(["def"])
    keys = [
        key(),
        key(make_encoder("plain")),
        key(other_words),
        key(max_length=128),
        key(overflow="truncate"),
        key(seed=1),
        key(eval_fraction=0.1),
    ]
    assert len(set(keys)) == len(keys)
    assert key(batch_size=3, learning_rate=1.0) == keys[0] == key(make_encoder())


# --- bad input ---

GOOD = {"prompt": "p", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"margin": math.nan}, "bad_margin"),
        ({"margin": math.inf}, "bad_margin"),
        ({"margin": "1"}, "bad_margin"),
        ({"rejected": "good"}, "sides_equal"),
        ({"chosen": 5}, "chosen_empty"),
        ({"prompt": ["p"]}, "prompt_empty"),
        ({"chosen": "x" * 300}, "over_max_length"),
        ({"prompt": "x" * 300}, "over_max_length"),
        ({"reason": "bad_label", "detail": "row 3"}, "bad_label"),
    ],
)
def test_unusable_rows_leave_with_their_reason(tmp_path: Path, change: Row, reason: str) -> None:
    rows = [{**GOOD, "pair_id": "good"}, {**GOOD, **change, "pair_id": "bad"}]
    task = make_task(tmp_path, rows, eval_fraction=0)
    assert [pair.item_id for pair in load(task).train] == ["good"]
    rejected = table(task, "rejected")
    assert [(row["row_id"], row["reason"]) for row in rejected] == [("bad", reason)]
    assert [row["pair_id"] for row in table(task, "used")] == ["good"]


def test_conversations_go_through_the_chat_template(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    talk.append({"role": "user", "content": "c"})
    row = {**GOOD, "prompt": None, "messages": talk, "pair_id": "x"}
    (pair,) = load(make_task(tmp_path / "chat", [row], eval_fraction=0)).train
    assert pair.prompt == ENCODER.prompt_ids(talk)
    plain = make_task(tmp_path / "plain", [row], eval_fraction=0, template="plain")
    with pytest.raises(InputError, match="plain prompts and takes no messages"):
        load(plain, encoder=make_encoder("plain"))


def test_messages_that_a_template_cannot_show_are_rejected(tmp_path: Path) -> None:
    encoder = make_encoder()
    template = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ m.no.field }}{% endif %}{% endfor %}"
    )
    broken = PromptTemplate("chat", "", "", True, template)
    talk = [{"role": "tool", "content": "a"}, {"role": "user", "content": "c"}]
    rows = [GOOD, {**GOOD, "messages": talk, "pair_id": "x"}]
    task = make_task(tmp_path, rows, eval_fraction=0)
    assert len(load(task, encoder=Encoder(encoder.tokenizer, broken)).train) == 1
    assert [row["reason"] for row in table(task, "rejected")] == ["prompt_not_rendered"]


def test_what_is_too_long_is_counted_by_source_under_either_rule(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "chosen": "x" * 300}, {**GOOD, "prompt": "x" * 300}]
    found = {}
    for rule in ("reject", "truncate"):
        task = make_task(tmp_path / rule, rows, eval_fraction=0, overflow=rule)
        data = load(task)
        assert [pair.num_tokens <= 512 for pair in data.train] == [True] * len(data.train)
        found[rule] = dict(ShardLedger(LocalStore(task.out_dir)).totals().stats)
    assert found["reject"] == {
        "source.run/num_pairs": 1,
        "source.run/num_items": 1,
        "source.run/num_rejected": 2,
        "source.run/num_over_max_length": 2,
        "rejected_by_reason.over_max_length": 2,
    }
    assert found["truncate"] == {
        "source.run/num_pairs": 2,
        "source.run/num_items": 2,
        "source.run/num_truncated": 1,
        "source.run/num_rejected": 1,
        "source.run/num_over_max_length": 1,
        "rejected_by_reason.over_max_length": 1,
    }
    assert [row["truncated"] for row in table(task, "used")] == [False, True]


def test_rows_beside_each_other_are_encoded_as_if_alone(preference_rows: list[Row]) -> None:
    rows = [*preference_rows[:3], {**GOOD, "chosen": " "}, *preference_rows[3:], GOOD]
    rows[1] = {**rows[1], "chosen": "x" * 300}
    together = encode_pairs(rows, ENCODER, 256, "truncate")
    assert together == [encode_pair(row, ENCODER, 256, "truncate") for row in rows]
    assert [pair.item_id for pair in together if isinstance(pair, EncodedItem)][:3] == [
        "pair-0",
        "pair-1",
        "pair-2",
    ]


def test_sides_that_differ_only_where_they_are_cut_are_equal() -> None:
    row = {**GOOD, "chosen": "x" * 300 + "a", "rejected": "x" * 300 + "b"}
    assert encode_pair(row, ENCODER, 100, "truncate") == ("sides_equal", "equal once they are cut")
    assert isinstance(encode_pair(row, ENCODER, 400, "truncate"), EncodedItem)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "0 rows, 0 rejected, 0 held out"),
        ([GOOD], {"eval_fraction": 0.999}, "1 rows, 0 rejected, 1 held out"),
        ([{**GOOD, "chosen": ""}], {}, "1 rows, 1 rejected, 0 held out"),
        ([{"prompt": "p", "chosen": "c"}], {}, r"lack the columns \['rejected'\]"),
    ],
)
def test_a_set_without_a_pair_to_train_on_is_refused(
    tmp_path: Path, rows: list[Row], settings: Row, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(make_task(tmp_path, rows, **settings))


def test_a_single_pair_is_a_set(tmp_path: Path) -> None:
    data = load(make_task(tmp_path, [GOOD], eval_fraction=0))
    assert len(data.train) == 1 and len(data.held_out) == 0
    assert data.mixture.step_indices(1024, 0).tolist() == [0]
    assert data.mixture.num_steps(1024, 3, None) == 3


def test_a_rank_that_fails_stops_the_others(tmp_path: Path) -> None:
    task = make_task(tmp_path, [GOOD], eval_fraction=0)
    failure = InputError("rank 1 could not read its rows.")
    with pytest.raises(CodePMPError, match="rank 1 could not"):
        load_items(task, ENCODER, 0, 2, lambda value: [value, failure])


def test_a_tokenizer_without_pad_token_encodes(tmp_path: Path) -> None:
    encoder = make_encoder()
    encoder.tokenizer.pad_token = None
    expected = list(load(make_task(tmp_path / "pad", [GOOD], eval_fraction=0)).train)
    assert list(load(make_task(tmp_path, [GOOD], eval_fraction=0), encoder=encoder).train) == (
        expected
    )


def test_tokens_that_the_model_does_not_know_cost_their_rows_only(tmp_path: Path) -> None:
    known = len(tiny_tokenizer())
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<later>"])
    encoder = Encoder(tokenizer, ENCODER.template, vocab_size=known)
    rows = [GOOD, *({**GOOD, side: "a <later>"} for side in ("prompt", "chosen", "rejected"))]
    data = load(make_task(tmp_path, rows, eval_fraction=0), encoder=encoder)
    assert len(data.train) == 1
    for row in ShardLedger(LocalStore(tmp_path)).read("rejected").to_pylist():
        assert row["reason"] == "unknown_token"
        assert row["detail"] == f"'<later>' has id {known}, the model {known} embeddings"


def test_weights_repeat_the_pairs_of_their_source(tmp_path: Path) -> None:
    rows = [{**GOOD, "chosen": f"good {i}", "problem_id": str(i)} for i in range(8)]
    names = [{"path": "x", "name": "a", "weight": 2.0}, {"path": "y", "name": "b"}]
    base = make_task(tmp_path, rows, per_shard=4, eval_fraction=0, data=names)
    inputs = tuple(
        InputShard(name, shard.digest, shard.read)
        for name, shard in zip("ab", base.inputs, strict=True)
    )
    task = TrainingTask(base.stage, base.config, "unused", inputs, str(tmp_path))
    data = load(task)
    epoch = sorted(data.mixture.step_indices(100, 0).tolist())
    assert epoch == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]
    assert {row["source"] for row in table(task, "used")} == {"a", "b"}


def test_a_pair_longer_than_a_micro_batch_is_refused_before_the_first_step(tmp_path: Path) -> None:
    """Each answer fits max_length with its prompt, but both do not fit the micro-batch."""
    rows = [
        {"prompt": "p", "chosen": "c" * n, "rejected": "r" * n, "source_id": str(n)}
        for n in (10, 100)
    ]
    limits = {"max_length": 128, "eval_fraction": 0.0}
    task = make_task(tmp_path, rows, max_tokens_per_micro_batch=160, **limits)
    with pytest.raises(InputError, match=r"has (\d+) tokens.*micro_batch=160.*=\1 or more"):
        load(task)
    longest = int(load(make_task(tmp_path, rows, **limits)).train.packed_lengths("best").max())
    enough = make_task(tmp_path, rows, max_tokens_per_micro_batch=longest, **limits)
    assert len(load(enough).train) == 2
    sft = make_task(tmp_path, rows, objective="sft", max_tokens_per_micro_batch=160, **limits)
    assert len(load(sft).train) == 2  # of which rejected is no part
