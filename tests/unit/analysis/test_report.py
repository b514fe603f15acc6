import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from codepmp_ray.analysis.report import write_report

pytestmark = pytest.mark.slow

HOSTILE = "</code></pre><script>alert(1)</script>\n```\n\x00\u202eevil $x_1$ & 'q' \""
_VOID = {"meta", "br", "link", "img", "input", "hr"}


class _Page(HTMLParser):
    """Collects tags and ids, and fails on elements that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [value for value in [values.get("id")] if value]
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset") and v]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def _page(maker) -> _Page:
    return _Page(Path(write_report(maker.recipe)).read_text(encoding="utf-8"))


def test_whole_run_is_one_valid_self_contained_page(maker):
    maker.all_stages()
    page = _page(maker)
    assert page.tags.count("svg") == 11
    assert page.tags.index("svg") < page.tags.index("table")  # the plot comes first
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)
    targets = {link[1:] for link in page.links}
    assert targets <= set(page.ids)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)


def test_summary_tells_the_run_in_its_numbers(maker):
    maker.all_stages()
    words = _page(maker).words
    assert "Too small to tell: the reward model differs from random by +8.3 points." in words
    assert "10 steps, held-out accuracy 62.5 % of 120 pairs" in words
    assert "5 steps, 16 held-out pairs: too few to tell" in words
    assert "best of 4: 33.3 % solved, random pick 25.0 %" in words
    assert "sums 30 40.0 % 25.0 % +15.0 +5.0 to +25.0" in words
    assert "odd ones 6 0.0 % 25.0 % too few to tell" in words
    assert "12 snippets from 10 files; 4 files and snippets were rejected" in words
    assert "10 snippets became 8 pairs; 2 were rejected." in words
    assert "HumanEval/2: the pick passes" in words and "HumanEval/3: the pick fails" in words
    assert "is missing" not in words


def test_other_data_make_another_report(maker, make_pair):
    maker.synthesis(
        [make_pair(i, chosen_num_tokens=1_234, rejected_num_tokens=7) for i in range(6)]
    )
    page = _page(maker)
    assert re.search(r"description chosen rejected mean [\d.]+ 1,234\.0 7\.0 median", page.words)
    assert "“the longer answer is the chosen one” alone" in page.words
    assert "100.0 % of pairs; 50 % would be no bias" in page.words


def test_every_stage_can_be_missing(maker):
    page = _page(maker)
    assert page.words.count("This stage is missing.") == 7
    assert "No verdict" in page.words
    assert "codepmp pairs make" in page.words
    assert "svg" not in page.tags


@pytest.mark.parametrize("missing", ["synthesis", "grades", "evaluation"])
def test_one_stage_missing(maker, missing: str):
    maker.all_stages()
    (maker.run_path(missing) / "manifest.json").unlink()
    (maker.run_path(missing) / "complete.json").unlink()
    assert _page(maker).words.count("This stage is missing.") == 1


def test_no_pair_passed(maker):
    maker.synthesis([], ("description_cut_off",) * 5)
    words = _page(maker).words
    assert "No snippet passed the gates: this dataset has no pairs." in words
    assert "5 snippets became 0 pairs; 5 were rejected." in words


def test_hostile_text_is_shown_not_obeyed(make_recipe, maker, make_pair):
    maker = type(maker)(make_recipe(name=HOSTILE))
    columns = (
        "prompt",
        "chosen",
        "rejected",
        "path",
        "repo",
        "license",
        "strong_model",
        "construction",
    )
    maker.synthesis([make_pair(0, **dict.fromkeys(columns, HOSTILE))], (HOSTILE,))
    maker.training("finetuning", [], [])
    maker.sampling()
    maker.evaluation(verdict=HOSTILE, model=HOSTILE, sandbox=HOSTILE, task=HOSTILE)
    html = Path(write_report(maker.recipe)).read_text(encoding="utf-8")
    assert "script" not in _Page(html).tags
    assert "<script>" not in html and "\x00" not in html and "\u202e" not in html
    assert "&lt;script&gt;alert(1)" in html and "\\u202eevil" in html


def test_demonstration_pairs_are_called_so(maker, make_pair):
    maker.synthesis([make_pair(i) for i in range(4)])
    assert "Demonstration pairs" not in _page(maker).words
    maker.synthesis_again([make_pair(i, weak_model="big") for i in range(4)])
    assert "Demonstration pairs: one model wrote both sides" in _page(maker).words


def test_problems_that_were_left_out_are_counted(maker):
    maker.sampling()
    maker.evaluation(num_not_gradable=3)
    assert "3 problems are left out: their own solutions do not pass here" in _page(maker).words


def test_results_with_gaps(maker):
    """A series without intervals, one that is too short, nulls and an unknown one."""
    bon = {
        "k": [1, 2],
        "reward_model": {"accuracy": [0.1, None], "low": [None, None], "high": [0.2, None]},
        "random": {"accuracy": [0.1]},
        "my_series": {"accuracy": [0.5, 0.625], "low": [0.4, 0.5], "high": [0.6, 0.7]},
    }
    maker.sampling()
    maker.evaluation(bon=bon, confidence=0.9, differences=None)
    page = _page(maker)
    assert "my series" in page.words and "62.5 % 50.0 to 70.0 %" in page.words
    assert "90 % bands" in page.words


def test_too_few_problems_make_no_headline(maker):
    maker.sampling()
    maker.evaluation(num_problems=29, verdict="Too few.")
    page = _page(maker)
    assert "Best-of-N done 29 problems: too few to tell" in page.words
    assert "Problems solved by each way to pick" not in page.words
    assert "33.3 %" in page.words  # where it belongs


def test_what_pmp_adds_is_told_once_it_shows_what_it_learned(maker, make_step, make_held_out):
    difference = {"mean": 0.03, "low": -0.01, "high": 0.07, "p_value": 0.2}
    other = {"accuracy": 0.3, "low": 0.2, "high": 0.4, "difference": difference}
    other["to_random"] = {"mean": 0.05, "low": -0.05, "high": 0.15, "p_value": 0.3}
    maker.sampling()
    maker.evaluation(without_pmp=other)
    words = _page(maker).words
    assert "PMP was tried on 0 held-out pairs, too few to say what it learned." in words
    assert "With PMP instead of without: +3.0 points (95 % interval -1.0 to +7.0), of" in words
    assert "the same without PMP 30.0 % 20.0 to 40.0 % +5.0 -5.0 to +15.0" in words
    maker.training("pretraining", [make_step(1)], [make_held_out(1, 0.9, 100)])
    words = _page(maker).words
    assert "PMP by itself ranks 90.0 % of 100 held-out pairs right." in words
    assert "-1.0 to +7.0), too small to tell." in words


def test_nothing_is_shown_as_a_dictionary_and_no_model_as_a_folder(maker):
    stage = maker.evaluation(model="/runs/x/finetuning-0123456789ab/model", generator="/m/big-one")
    (maker.run_path("evaluation") / "complete.json").unlink()
    stage.complete({"outcomes": {"passed": 3, "no_code": 2}, "executed": True, "ks": [1, 2]})
    words = _page(maker).words
    assert "outcomes passed 3, no code 2" in words and "executed yes" in words
    assert "ks 1, 2" in words and "Answers by big-one, scored by this run's reward model." in words
    shown = words.partition("Stages of the run")[2].partition("The full recipe")[0]
    assert "{" not in shown and "finetuning-0123456789ab" not in shown


def test_metrics_that_are_not_numbers(maker, make_step):
    steps = [
        {**make_step(i), "loss": float("nan"), "loss_lm": None, "grad_norm": None} for i in (1, 2)
    ]
    maker.training("pretraining", steps, [])
    words = _page(maker).words
    assert "loss - RM loss 0.35" in words
    assert "Accuracy on held-out pairs was not measured." in words


def test_report_is_replaced_whole(maker, monkeypatch: pytest.MonkeyPatch):
    maker.corpus()
    path = Path(write_report(maker.recipe))
    assert path == Path(maker.recipe.run_dir) / "report.html"
    before = path.read_bytes()
    monkeypatch.setattr("codepmp_ray.storage.local.os.replace", _no_space)
    with pytest.raises(Exception, match="Cannot write"):
        write_report(maker.recipe)
    assert path.read_bytes() == before
    assert list(path.parent.glob(".*")) == []


def test_configuration_and_versions_are_in_it(make_recipe, maker):
    maker = type(maker)(make_recipe(corpus={"max_chars": 3_777}))
    maker.corpus()
    words = _page(maker).words
    assert "max_chars: 3777" in words
    assert maker.run_path("corpus").name in words
    assert "pyarrow" in words


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
