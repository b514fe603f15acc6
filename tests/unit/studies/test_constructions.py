"""Figure 6: constructions of one set's rows beside sets that recipes made, equally many pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.studies import StudiesConfig, load_studies
from codepmp_ray.errors import ConfigError
from codepmp_ray.studies.bench import Bench
from codepmp_ray.studies.catalogue import STUDIES
from codepmp_ray.studies.pair_rows import REVERSED, SOURCE_STRONG, SOURCE_WEAK, STRONG_WEAK
from codepmp_ray.studies.study import Context
from codepmp_ray.studies.trainings import Training
from tests.unit.studies.conftest import MakeBench, measured, write_rows

RECIPE = Path(__file__).resolve().parents[3] / "jobs" / "recipes" / "studies" / "laptop.yaml"
CLIP, WEB = "description clip", "web pages"


def _rows(num: int, side: str, *, has_code: bool = False) -> list[dict[str, Any]]:
    """Ids are those of the prompts: sets that ask the same share them."""
    return [
        {"prompt": f"make {i}", "chosen": f"good {i}", "rejected": f"{side} {i}", "pair_id": str(i)}
        | ({"source_code": f"def f(): return {i}"} if has_code else {})
        for i in range(num)
    ]


@pytest.fixture
def bench(make_bench: MakeBench, tmp_path: Path) -> Bench:
    write_rows(tmp_path / "real.jsonl", _rows(12, "bad", has_code=True))
    names = ("real", "clip", "web")
    sets = {n: {"paths": [f"{n}.jsonl"], "test_fraction": 0, "title": f"pairs {n}"} for n in names}
    sets["sums"] = {"paths": ["sums.jsonl"], "test_fraction": 0.5}
    sets["web"]["made_by"] = "python -m jobs.synthesize --config web.yaml"
    options = {"train_set": "real", "constructions": {CLIP: "clip", WEB: "web"}}
    return make_bench(sets=sets, studies={"figure6": options})


def _pmp(bench: Bench) -> dict[str, Training]:
    """The PMP of each construction, first seed."""
    context = Context("figure6", bench, bench.config.options("figure6"))
    found = {arm.label: arm.by_seed[0].start for arm in STUDIES["figure6"].arms(context)}
    return {label: t for label, t in found.items() if isinstance(t, Training) and t.start != label}


def _with_pmp(bench: Bench) -> dict[str, int]:
    """Pairs of each construction's PMP."""
    return {
        label: len(bench.pairs.rows(training.pairs, "trend"))
        for label, training in _pmp(bench).items()
        if label != "no PMP"
    }


def test_every_construction_trains_on_as_many_pairs_as_the_smallest_has(
    bench: Bench, tmp_path: Path
) -> None:
    write_rows(tmp_path / "clip.jsonl", _rows(20, "clipped"))
    write_rows(tmp_path / "web.jsonl", _rows(5, "unloved"))
    assert _with_pmp(bench) == dict.fromkeys(
        (STRONG_WEAK, SOURCE_WEAK, SOURCE_STRONG, REVERSED, CLIP, WEB), 5
    )
    rejected = {row["rejected"] for row in bench.pairs.rows(_pmp(bench)[CLIP].pairs, "trend")}
    assert all(text.startswith("clipped") for text in rejected)
    outcome = measured(bench, "figure6")
    labels = [row.label for row in outcome.tables[0].rows]
    assert labels[-4:] == [CLIP, WEB, "rule: longer answer", "rule: style"]
    assert f"{STRONG_WEAK} against {WEB}" in [c.question for c in outcome.comparisons]
    assert outcome.facts["num_pairs"] == 5 and outcome.facts["num_available"][CLIP] == 16
    assert any(f"5 pairs of every construction, as many as {WEB}" in t for t in outcome.differs)


def test_no_construction_exceeds_a_whole_run_of_pmp(bench: Bench, tmp_path: Path) -> None:
    for name in ("real", "clip", "web"):
        write_rows(tmp_path / f"{name}.jsonl", _rows(30, name, has_code=True))
    assert set(_with_pmp(bench).values()) == {16}
    differs = measured(bench, "figure6").differs
    assert any("16 pairs of every construction, a whole run's;" in text for text in differs)


def test_a_set_that_is_not_here_is_named_with_its_command_and_the_others_go_on(
    bench: Bench, tmp_path: Path
) -> None:
    write_rows(tmp_path / "clip.jsonl", _rows(20, "clipped"))
    assert _with_pmp(bench) == dict.fromkeys(
        (STRONG_WEAK, SOURCE_WEAK, SOURCE_STRONG, REVERSED, CLIP), 12
    )
    context = Context("figure6", bench, bench.config.options("figure6"))
    (missing,) = context.missing()
    assert missing.startswith(f"{WEB}: The set 'web' is not here: it is looked for as web.jsonl")
    assert "`python -m jobs.synthesize --config web.yaml` makes it." in missing
    before = bench.study_key("figure6", STUDIES["figure6"].arms(context))
    write_rows(tmp_path / "web.jsonl", _rows(20, "unloved"))
    again = Bench(bench.config)
    context = Context("figure6", again, again.config.options("figure6"))
    assert context.missing() == []
    assert again.study_key("figure6", STUDIES["figure6"].arms(context)) != before


def test_prompts_are_called_the_same_only_where_they_are(bench: Bench, tmp_path: Path) -> None:
    write_rows(tmp_path / "clip.jsonl", _rows(12, "clipped"))
    other = [row | {"prompt": f"why {i}?"} for i, row in enumerate(_rows(12, "unloved"))]
    write_rows(tmp_path / "web.jsonl", [*_rows(2, "unloved"), *other[2:]])
    texts = [text for text in measured(bench, "figure6").differs if text[:4] in ("desc", "web ")]
    assert texts == [
        f"{CLIP}: pairs clip, on the same 12 prompts as {STRONG_WEAK}.",
        f"{WEB}: pairs web, 2 of whose 12 prompts are among the 12 of {STRONG_WEAK}: they differ "
        "in prompts as well as in construction.",
    ]


def test_lengths_are_of_the_texts_and_not_of_ids_that_two_sets_share(
    bench: Bench, tmp_path: Path
) -> None:
    longer = [row | {"chosen": row["chosen"] + " and more" * 9} for row in _rows(12, "clipped")]
    write_rows(tmp_path / "clip.jsonl", longer)
    assert _with_pmp(bench)[CLIP] == 12
    real, clip = (bench.set(name).train for name in ("real", "clip"))
    for short, long in zip(real, clip, strict=True):
        assert short["pair_id"] == long["pair_id"]
        assert bench.pairs.num_tokens(long, "trend") > bench.pairs.num_tokens(short, "trend")


def test_rows_without_their_snippet_make_no_pairs_of_it(bench: Bench, tmp_path: Path) -> None:
    write_rows(tmp_path / "real.jsonl", _rows(12, "bad"))
    assert _with_pmp(bench) == dict.fromkeys((STRONG_WEAK, REVERSED), 12)
    differs = measured(bench, "figure6").differs
    assert f"Rows of pairs real have no source_code for: {SOURCE_WEAK}, {SOURCE_STRONG}." in differs


def test_labels_and_sets_are_checked(make_bench: MakeBench) -> None:
    wrong = {"figure6": {"train_set": "sums", "constructions": {STRONG_WEAK: "sums"}}}
    with pytest.raises(ConfigError, match=r"label 'strong & weak'.*another label"):
        _pmp(make_bench(studies=wrong))
    with pytest.raises(ConfigError, match=r"Set studies\.figure6\.train_set"):
        _pmp(make_bench())
    unknown = {"figure6": {"constructions": {"x": "nowhere"}}}
    with pytest.raises(ValueError, match="figure6: the set 'nowhere' is not among sets"):
        make_bench(studies=unknown)


def test_the_shipped_recipe_names_the_papers_other_constructions() -> None:
    config: StudiesConfig = load_studies(RECIPE)
    root = RECIPE.parents[3]
    for name in config.options("figure6").constructions.values():
        made_by = config.sets[name].made_by
        assert made_by.startswith("python -m jobs.synthesize --config ")
        assert (root / made_by.split()[-1]).is_file()
