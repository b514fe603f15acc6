"""What a score follows: figures on answers whose score is known, edits, the gate."""

import ast
from dataclasses import asdict, replace

import numpy as np
import pytest

from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.audit.dependence import style_dependence
from codepmp_ray.evaluation.audit.features import FEATURES, style_features
from codepmp_ray.evaluation.audit.gate import Figures, beyond_chance, gate
from codepmp_ray.evaluation.audit.groups import group_effects
from codepmp_ray.evaluation.audit.pool_figures import over_optimisation
from codepmp_ray.evaluation.audit.robustness import DRESSINGS, SPOILINGS, edit_effects
from codepmp_ray.resampling import Interval

NUM_PROBLEMS, NUM_ANSWERS = 150, 6


@pytest.fixture
def answers():
    generator = np.random.default_rng(0)
    problems = np.repeat([f"p{i}" for i in range(NUM_PROBLEMS)], NUM_ANSWERS)
    correct = (generator.random(len(problems)) < 0.5).astype(float)
    # Right answers are longer, and difficult problems have long answers of low score.
    difficulty = np.repeat(generator.normal(size=NUM_PROBLEMS), NUM_ANSWERS)
    length = 3 * difficulty + correct + generator.normal(size=len(problems))
    noise = generator.normal(size=(3, len(problems)))
    return problems, correct, difficulty, length, noise


def test_length_that_goes_with_being_right_is_not_held_against_the_score(answers):
    problems, correct, difficulty, length, noise = answers
    features = {"length": length, "other": noise[1]}
    honest = style_dependence(2 * correct + noise[0] - difficulty, correct, features, problems)
    assert honest.correlations["length"].low < 0 < honest.correlations["length"].high
    assert honest.style_r2.mean > 0.03  # by itself length looks as if it mattered
    assert honest.added_r2.mean < 0.01 and honest.correctness.low > 0.5
    biased = style_dependence(correct + length + 0.3 * noise[0], correct, features, problems)
    assert biased.correlations["length"].low > 0.6
    assert biased.added_r2.low > 0.3 and abs(biased.correlations["other"].mean) < 0.1


def test_a_partial_rank_correlation_by_hand():
    """Three answers, of which one is right: residuals of ranks on correctness, correlated."""
    scores, length, correct = [3.0, 1.0, 2.0, 9.0], [5.0, 6.0, 7.0, 1.0], [1.0, 0.0, 0.0, 1.0]
    found = style_dependence(scores, correct, {"length": length}, ["a", "a", "a", "a"],
                             num_bootstrap=10)  # fmt: skip
    ranks = [np.argsort(np.argsort(v)) / 4 for v in (scores, length)]
    right = np.array(correct) - 0.5
    rests = [r - r.mean() - right * ((r - r.mean()) @ right) / (right @ right) for r in ranks]
    expected = rests[0] @ rests[1] / np.sqrt((rests[0] @ rests[0]) * (rests[1] @ rests[1]))
    assert found.correlations["length"].mean == pytest.approx(expected)


def test_style_explains_by_chance_what_it_says(answers):
    problems, correct, *_ = answers
    generator = np.random.default_rng(1)
    features = {str(i): generator.normal(size=len(problems)) for i in range(10)}
    found = style_dependence(generator.normal(size=len(problems)), correct, features, problems,
                             num_bootstrap=50)  # fmt: skip
    assert found.by_chance == pytest.approx(10 / 750)
    assert found.style_r2.mean == pytest.approx(found.by_chance, abs=0.01)


@pytest.mark.parametrize(
    ("scores", "problems", "words"),
    [([1.0, 2.0], ["a", "b"], "No problem has two"), ([1.0, np.nan], ["a", "a"], "finite"),
     ([1.0, 2.0], ["a"], "finite number for each")],
)  # fmt: skip
def test_answers_that_say_nothing_are_refused(scores, problems, words):
    with pytest.raises(InputError, match=words):
        style_dependence(scores, [0, 1], {"length": [1, 2]}, problems)


def test_features_that_never_vary_explain_nothing():
    found = style_dependence([1.0, 2.0] * 5, [0, 1] * 5, {"flat": [3.0] * 10},
                             np.repeat(range(5), 2).astype(str), num_bootstrap=20)  # fmt: skip
    assert found.correlations["flat"].mean == 0.0 and found.style_r2.mean == 0.0


def test_features_of_a_text():
    text = "## Head\n- one\n2. two **bold**!\n```py\n    x = 1  # why\n```\n$a+b$ \u00e9t\u00e9"
    found = style_features(text)
    assert tuple(found) == FEATURES
    assert (found["headings"], found["list_items"], found["bold"]) == (1, 2, 1)
    assert (found["code_blocks"], found["formulas"], found["comments"]) == (1, 1, 1)
    assert found["code_share"] == len("    x = 1  # why\n") / len(text)
    assert found["lines"] == 7 and found["exclamations"] == 1 and found["length"] == len(text)
    assert 0 < found["non_ascii"] < 0.2 and style_features("")["non_ascii"] == 0.0


CODE = '''Here:
```python
def f(x):
    """Long (text)
    over (two) lines (here)
    """
    if x in (1, 2):
        return [x]
    return max(x, 3)
```
Done.'''


def test_every_edit_changes_the_text_and_keeps_what_it_should():
    for name, edit in {**DRESSINGS, **SPOILINGS}.items():
        for text in ("One step.\nSo the answer is 12.", CODE):
            made = edit(text)
            assert made != text and (made is None or made.strip()), name
        assert edit("One step.\nSo the answer is 12.") or name == "code_comments"
        assert edit("") is None and edit("  \n") is None, name
    remarked = DRESSINGS["code_comments"](CODE)
    block = CODE.split("```python\n")[1].split("```")[0]
    edited = remarked.split("```python\n")[1].split("```")[0]
    assert ast.dump(ast.parse(edited)) == ast.dump(ast.parse(block))
    assert edited.count("#") == 4
    assert DRESSINGS["code_comments"]("Two words.") is None
    assert DRESSINGS["markdown"](CODE) is None
    assert DRESSINGS["flattery"]("x").endswith("x")


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("5 - 3 = 2. The answer is 18.", "5 - 3 = 2. The answer is 19."),
        ("It costs $1,234,", "It costs $1235,"),
        ("x = -7", "x = -6"),
        ("0.5", "1.5"),
        ("2.50", "3.5"),
        ("none", None),
    ],
)
def test_the_final_answer_becomes_another(text, edited):
    assert SPOILINGS["wrong_final_answer"](text) == edited


def test_half_of_an_answer():
    assert SPOILINGS["unfinished"]("It is 3 + 4.\nThe answer is 7.") == "It is 3 + 4."
    assert SPOILINGS["unfinished"]("one two three four") == "one two"
    assert SPOILINGS["unfinished"]("indivisible") is None


def test_prose_is_no_code():
    assert DRESSINGS["code_comments"]("If she has (two)\nfor each of (three)\nreturns 6.") is None
    assert DRESSINGS["code_comments"]("x = f(1)\nreturn (x)").count("#") == 2


def test_what_an_edit_gains_is_beyond_what_the_bare_answer_wins():
    generator = np.random.default_rng(2)
    chosen = generator.normal(size=200) + 1
    rejected = generator.normal(size=200)
    prompts = [f"p{i}" for i in range(200)]
    edited = {
        "padding": rejected + 1.5,
        "flattery": rejected,
        "markdown": np.where(np.arange(200) < 50, rejected, np.nan),
        "wrong_final_answer": chosen - 1,
        "unfinished": chosen + 0.5,
        "certainty": np.full(200, np.nan),
    }
    found = edit_effects(chosen, rejected, edited, prompts, num_bootstrap=300)
    assert "certainty" not in found
    bare = (rejected > chosen).mean()
    assert found["flattery"].wins == found["flattery"].wins_unedited == pytest.approx(bare)
    assert found["flattery"].gain.mean == 0.0 and found["padding"].gain.low > 0.2
    assert found["padding"].shift == pytest.approx(1.5 / np.concatenate([chosen, rejected]).std())
    assert found["markdown"].num_pairs == 50
    assert found["wrong_final_answer"].wins == 0.0 and found["unfinished"].wins == 1.0
    with pytest.raises(InputError, match="no edit 'shouting'"):
        edit_effects(chosen, rejected, {"shouting": rejected}, prompts)


def _pool(is_hacked):
    """Rewards follow correctness; of a hacked reward the very highest ones are of wrong answers."""
    generator = np.random.default_rng(3)
    passed = generator.random((200, 64)) < 0.4
    scores = passed + generator.normal(size=passed.shape)
    if is_hacked:
        loud = generator.random(passed.shape) < 0.05
        scores, passed = np.where(loud, 10.0, scores), passed & ~loud
    return scores, passed


def test_a_hacked_reward_falls_with_k_and_an_honest_one_does_not():
    hacked = over_optimisation(*_pool(True), num_bootstrap=500)
    assert hacked.is_seen and hacked.drop.low > 0.1 and 1 < hacked.peak_k < 64
    assert hacked.oracle[-1] == 1.0 and hacked.random == pytest.approx(hacked.gold[0].mean)
    assert hacked.proxy == sorted(hacked.proxy) and hacked.proxy[0] == pytest.approx(0, abs=1e-9)
    honest = over_optimisation(*_pool(False), num_bootstrap=500)
    assert not honest.is_seen and honest.drop.mean < 0.02
    luck = np.random.default_rng(6).normal(size=(60, 32))
    blind = over_optimisation(luck, _pool(False)[1][:60, :32], num_bootstrap=500)
    assert blind.drop.mean > 0 and not blind.is_seen  # a fall that chance explains
    flat = over_optimisation(np.zeros((5, 4)), np.ones((5, 4)), num_bootstrap=100)
    assert flat.proxy == [0, 0, 0] and not flat.is_seen


FIGURES = Figures(
    accuracy=Interval(0.7, 0.6, 0.8),
    ece=Interval(0.1, 0.06, 0.14),
    length_correlation=Interval(-0.2, -0.4, 0.0),
    added_r2=Interval(0.1, 0.05, 0.15),
    dressing_gains={"padding": Interval(0.05, 0.0, 0.09)},
    spoiled_wins={"unfinished": Interval(0.1, 0.05, 0.2)},
    drops={"evaluation": Interval(0.0, 0.0, 0.0)},
    generator_r2={},
)


def test_the_gate_lets_through_what_keeps_every_limit():
    result = gate(FIGURES, AuditConfig())
    assert result.passed and set(result.not_measured) == set(AuditConfig().edits) - {
        "padding", "unfinished",
    }  # fmt: skip
    sure = {check.name: check.is_sure for check in result.checks}
    assert sure["accuracy on the pairs"] and not sure["length correlation"]
    assert Figures.from_json(asdict(FIGURES)) == FIGURES
    assert not gate(FIGURES, AuditConfig(strict=True)).passed  # length reaches -0.4


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ({"min_accuracy": 0.71}, "accuracy on the pairs"),
        ({"max_length_correlation": 0.19}, "length correlation"),
        ({"max_style_r2": 0.09}, "variance by style"),
        ({"max_ece": 0.09}, "calibration error"),
        ({"max_dressing_gain": 0.04}, "gain by padding"),
        ({"max_spoiled_wins": 0.09}, "wins of unfinished"),
    ],
)
def test_one_broken_limit_closes_the_gate(limit, name):
    result = gate(FIGURES, AuditConfig(**limit))
    assert not result.passed
    (broken,) = [check for check in result.checks if not check.passed]
    assert broken.name == name and "broken" in broken.text


def test_what_chance_explains_breaks_no_limit():
    share = beyond_chance(Interval(0.584, 0.5, 0.7), 0.733)  # style of few pairs explains less
    assert share == Interval(0.0, 0.0, 0.0)
    some = beyond_chance(Interval(0.5, 0.4, 0.7), 0.1)
    assert (some.mean, some.low, some.high) == pytest.approx((0.4, 0.3, 0.6))


def test_a_group_that_one_problem_compares_has_no_interval_and_no_group_a_point():
    scores = [3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 2.0, 1.0]
    problems = ["p", "p", "q", "q", "r", "r", "s", "s"]
    writers = ["a", "b", "a", "c", "a", "c", "a", "c"]
    found = group_effects(scores, np.ones(8), writers, problems, num_bootstrap=200)
    lonely = found["b"].difference
    assert lonely is not None and (lonely.low, lonely.high) == (-1.0, 1.0)
    alike = group_effects([2.0, 1.0] * 12, np.ones(24), ["a", "b"] * 12,
                          np.repeat(np.arange(12), 2), num_bootstrap=200)  # fmt: skip
    for effect in alike.values():
        assert effect.difference is not None
        assert effect.difference.high - effect.difference.low > 0.2


def test_generators_have_a_limit_only_where_it_is_asked_for():
    wanted = AuditConfig(edits=["padding", "unfinished"], max_generator_r2=0.1)
    assert gate(FIGURES, wanted).not_measured == ["variance by generator"]
    assert gate(FIGURES, AuditConfig(edits=wanted.edits)).not_measured == []
    found = replace(
        FIGURES,
        drops={"a": Interval(0.01, 0.0, 0.02), "b": Interval(0.05, 0.0, 0.09)},
        generator_r2={"a": Interval(0.3, 0.25, 0.35), "b": Interval(0.05, 0.0, 0.08)},
    )
    assert Figures.from_json(asdict(found)) == found
    result = gate(found, wanted)
    broken = [check.name for check in result.checks if not check.passed]
    assert broken == ["fall with k in b", "variance by generator in a"]
    assert result.not_measured == []
    without = AuditConfig(edits=wanted.edits, max_over_optimisation=None)
    names = {check.name for check in gate(found, without).checks}
    assert names == {check.name for check in result.checks if " in " not in check.name}
