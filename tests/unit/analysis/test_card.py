import re
from pathlib import Path

import pytest
import yaml

from codepmp_ray.analysis.card import write_card
from codepmp_ray.records import PAIR, REJECTED, table_from_rows
from codepmp_ray.shard_stats import shard_stats


def _card(maker, **kwargs) -> tuple[dict, str]:
    text = Path(write_card(maker.recipe, **kwargs)).read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_card_points_at_files_that_load_as_a_dataset(
    maker, make_pair, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    stage = maker.synthesis([make_pair(i) for i in range(8)])
    write_card(maker.recipe)
    dataset = load_dataset(stage.uri, split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.num_rows == 8
    assert dataset.column_names == PAIR.names
    rejected = load_dataset(stage.uri, "rejected", split="train", cache_dir=str(tmp_path / "cache"))
    assert rejected["reason"] == ["sides_equal"] * 2


def test_counts_licences_and_lengths(maker, make_pair):
    pairs = [make_pair(i, license="MIT" if i < 3 else "PSF-2.0") for i in range(8)]
    maker.synthesis(pairs, ("sides_equal", "chosen_empty", "chosen_empty"))
    header, body = _card(maker)
    assert header["license"] == ["mit", "other"] and header["license_name"] == "psf-2.0"
    assert header["size_categories"] == ["n<1K"]
    for line in (
        "| snippets in | 11 |",
        "| pairs | 8 |",
        "| rejected | 3 |",
        "| `chosen_empty` | 2 |",
        "| `PSF-2.0` | 5 |",
        "| `MIT` | 3 |",
        "| chosen | 13.5 | 13.5 | 17 | 17 |",
    ):
        assert line in body
    assert "Demonstration" not in body
    # Every rejected answer is two tokens longer, so the longer one is never the chosen one.
    assert "is right in 0.0\u00a0% of pairs, ties as half (95 % interval 0.0 to 32.4\u00a0%" in body


def test_a_lost_attempt_is_not_part_of_the_dataset(maker, make_pair):
    stage = maker.synthesis([make_pair(i) for i in range(4)])
    stage.store.put("pairs/00000/00000000.deadbeef.parquet", b"of a writer that lost")
    header, _ = _card(maker)
    listed = header["configs"][0]["data_files"][0]["path"]
    assert sorted(listed) == [f"pairs/00000/{name}" for name in stage.store.list("pairs/00000")]
    assert not any("deadbeef" in name for name in listed)


def test_same_model_on_both_sides_is_a_demonstration(maker, make_pair):
    maker.synthesis([make_pair(i, weak_model="big") for i in range(2)])
    _, body = _card(maker)
    assert "> **Demonstration pairs.**" in body and "not a dataset to train on" in body


def test_no_pairs(maker):
    maker.synthesis([], ("description_empty",) * 2)
    header, body = _card(maker)
    assert [config["config_name"] for config in header["configs"]] == ["rejected"]
    assert "No snippet passed the gates" in body and "nan" not in body.lower()


def test_prompts_and_construction(make_recipe, maker, make_pair):
    sections = {"construction": "description_clip", "clip_fraction": 0.25}
    maker = type(maker)(make_recipe(synthesis=sections))
    maker.synthesis([make_pair(0)])
    _, body = _card(maker, prompts={"describe": "Read:\n```\n{code}\n```"})
    assert "Construction: `description_clip` (the weak side" in body and "last 25 %" in body
    assert "````text\nRead:\n```\n{code}\n```\n````" in body


def test_hostile_text_cannot_leave_its_place(maker, make_pair):
    evil = "```\n# Heading\n<script>|\x00\u202e````\n---\nlicense: x"
    maker.synthesis([make_pair(0, prompt=evil, chosen=evil, path=evil, repo=evil, license=evil)])
    header, body = _card(maker)
    assert set(header) >= {"license", "configs"} and header["license"] == ["other"]
    assert "\x00" not in body and "\u202e" not in body
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "# Heading\n" not in outside and "\n---\n" not in outside
    for line in outside.splitlines():
        if "<script>" in line:
            assert re.search(r"(`+).*<script>.*\1", line)


def test_sides_without_a_model_are_measured_in_characters(make_recipe, maker, make_pair):
    maker = type(maker)(make_recipe(synthesis={"construction": "source_model"}))
    source = {"strong_model": None, "chosen_num_tokens": None, "chosen_finish_reason": None}
    maker.synthesis([make_pair(i, chosen="x" * (i + 1), **source) for i in range(8)])
    _, body = _card(maker)
    assert "## Lengths in characters" in body and "| chosen | 4.5 | 4.5 | 8 | 8 |" in body
    assert "| rejected |" in body and "| chosen | `" not in body  # no model wrote that side


def test_hits_of_evaluation_sets(maker, make_pair):
    stage = maker.synthesis([make_pair(0)])
    _, body = _card(maker)
    assert "| `humaneval` | 0 | 0 | 0 |" in body
    row = {"row_id": "x", "reason": "contaminated", "detail": "humaneval: chosen: 10-gram 'a'"}
    tables = {
        "pairs": table_from_rows([], PAIR),
        "rejected": table_from_rows([row] * 2, REJECTED),
    }
    stage.ledger.commit(9, 2, tables, shard_stats(tables))
    _, body = _card(maker)
    assert "| `humaneval` | 0 | 2 | 0 |" in body
