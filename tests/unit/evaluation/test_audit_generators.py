"""Who wrote an answer: shares of variance, differences and choices on scores that are known."""

import numpy as np
import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.audit.dependence import score_by_length
from codepmp_ray.evaluation.audit.features import (
    NO_CODE,
    NO_LETTERS,
    UNTAGGED,
    code_share,
    fence_of,
    script_of,
)
from codepmp_ray.evaluation.audit.generators import choices, generator_style, rank_correlations
from codepmp_ray.evaluation.audit.groups import MAX_GROUPS, OTHERS, group_effects
from codepmp_ray.evaluation.audit.pool_figures import best_of_pool, measure_pool
from codepmp_ray.evaluation.audit.pools import ScoredPool

NUM_PROBLEMS = 80
STRENGTH = dict(zip("abcdefgh", np.linspace(0.2, 0.9, 8), strict=True))
DRAWS = (0.95, 200, 0)


@pytest.fixture
def answers():
    """Eight generators, each with one answer to every problem; right as often as STRENGTH says."""
    random = np.random.default_rng(0)
    problems = [f"p{i}" for i in range(NUM_PROBLEMS) for _ in STRENGTH]
    writers = list(STRENGTH) * NUM_PROBLEMS
    strength = np.array([STRENGTH[name] for name in writers])
    correct = (random.random(len(writers)) < strength).astype(float)
    return problems, writers, strength, correct, random.normal(size=len(writers))


def partial_r2(scores, correct, writers, problems):
    """By least squares with a dummy for each cell and each generator: an independent way."""
    ranks = np.empty(len(scores))
    for problem in set(problems):
        rows = [i for i, name in enumerate(problems) if name == problem]
        values = np.array([scores[i] for i in rows])
        below = (values[:, None] > values).sum(axis=1)
        equal = (values[:, None] == values).sum(axis=1)
        ranks[rows] = (below + equal / 2) / len(rows)
    labels = [f"{p}/{c}" for p, c in zip(problems, correct, strict=True)]
    cell = np.array([[name == label for name in sorted(set(labels))] for label in labels], float)
    who = np.array([[name == writer for name in sorted(set(writers))] for writer in writers], float)

    def rest(design):
        fitted = design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
        return ((ranks - fitted) ** 2).sum()

    without = rest(cell)
    return (without - rest(np.concatenate([cell, who], axis=1))) / without


def test_the_partial_r2_is_that_of_least_squares(answers):
    problems, writers, strength, correct, noise = answers
    keep = np.random.default_rng(1).random(len(writers)) < 0.6  # unbalanced, as files are
    part = np.flatnonzero(keep)
    scores = np.round(strength + 0.5 * correct + 0.4 * noise, 1)[part]  # with ties
    names, places = [writers[i] for i in part], [problems[i] for i in part]
    found = generator_style(scores, correct[part], names, places, *DRAWS)
    expected = partial_r2(scores, correct[part], names, places)
    assert 0.1 < expected < 0.9
    assert found.generator_r2.mean == pytest.approx(expected, abs=1e-9)
    assert found.generator_r2.low < expected < found.generator_r2.high


def test_a_score_that_is_the_generators_name(answers):
    problems, writers, strength, correct, _ = answers
    found = generator_style(strength, correct, writers, problems, *DRAWS)
    assert found.generator_r2.mean == pytest.approx(1.0)
    assert found.prior_correlation.mean == pytest.approx(1.0, abs=0.03)
    assert found.effects["a"].difference.high < 0 < found.effects["h"].difference.low
    assert 0 < found.correctness_r2.mean < 0.4  # names tell correctness in part
    chosen = choices(strength, correct, writers, problems, *DRAWS)
    shares = chosen.shares
    assert shares["with_prior"].accuracy.mean > 0.95 > 0.05 > shares["against_prior"].accuracy.mean
    assert shares["same"] is None and chosen.same_gap is None  # one answer each
    assert shares["across"].num_problems == NUM_PROBLEMS


def test_a_score_that_knows_only_what_is_right(answers):
    problems, writers, _, correct, noise = answers
    found = generator_style(3 * correct + 0.1 * noise, correct, writers, problems, *DRAWS)
    assert found.generator_r2.mean == pytest.approx(found.by_chance, abs=0.02)
    num_cells = len(set(zip(problems, correct, strict=True)))
    assert found.by_chance == pytest.approx(7 / (len(problems) - num_cells))
    # Resamples repeat problems, so chance explains more in them: the interval allows for it.
    blind = generator_style(noise, correct, writers, problems, *DRAWS).generator_r2
    assert blind.low < 0.005 < blind.mean < blind.high
    assert found.correctness_r2.low > 0.6
    random = np.random.default_rng(5)
    luck = [
        generator_style(3 * correct + random.normal(size=len(noise)), correct, writers, problems,
                        num_bootstrap=10).prior_correlation.mean
        for _ in range(12)
    ]  # fmt: skip
    assert abs(np.mean(luck)) < 0.35 < 2 * np.std(luck)  # of eight generators by chance: 0.38
    shares = choices(3 * correct + 0.1 * noise, correct, writers, problems, *DRAWS).shares
    assert shares["against_prior"].accuracy.mean == 1.0 == shares["with_prior"].accuracy.mean


def test_a_score_with_nothing_in_it_explains_nothing(answers):
    problems, writers, _, correct, _ = answers
    found = generator_style(np.ones(len(writers)), correct, writers, problems, *DRAWS)
    assert found.generator_r2.mean == 0.0 and found.correctness_r2.mean == 0.0
    assert {effect.difference.mean for effect in found.effects.values()} == {0.0}
    shares = choices(np.ones(len(writers)), correct, writers, problems, *DRAWS).shares
    assert shares["across"].accuracy.mean == 0.5
    assert shares["with_prior"].accuracy.mean == shares["against_prior"].accuracy.mean == 0.5


def test_answers_of_one_generator_are_told_apart_or_not():
    """Two generators with two answers each; the score is the name, plus what is right for one."""
    problems = [f"p{i}" for i in range(30) for _ in range(4)]
    writers = ["a", "a", "b", "b"] * 30
    correct = np.array([0.0, 1.0, 1.0, 1.0] * 30)
    scores = np.array([0.0, 0.0, 1.0, 1.0] * 30)
    found = choices(scores, correct, writers, problems, *DRAWS)
    assert found.shares["same"].accuracy.mean == 0.5 and found.shares["same"].num_pairs == 30
    assert found.shares["across"].accuracy.mean == 1.0 and found.shares["across"].num_pairs == 60
    assert found.same_gap.mean == 0.5 and found.shares["against_prior"] is None


@pytest.mark.parametrize("writers", [["a"] * 6, ["a", "b", "c", "a", "b", "c"]])
def test_one_generator_or_none_in_a_cell_is_not_measured(writers):
    """Of the second list no two generators wrote equally right answers to one problem."""
    correct = [1, 0, 1, 1, 0, 1] if writers[1] == "a" else [1, 0, 1, 0, 1, 0]
    problems = list("xxyyyy") if writers[1] == "a" else list("xxyzzw")
    assert generator_style(np.arange(6.0), correct, writers, problems, *DRAWS) is None
    assert generator_style([], [], [], [], *DRAWS) is None


def test_two_generators_have_no_rank_correlation():
    found = generator_style([1, 2, 3, 4], [1, 1, 0, 0], list("abab"), list("xxxx"), *DRAWS)
    assert found.prior_correlation is None and found.generator_r2.mean == pytest.approx(1)
    assert found.effects["b"].difference.mean == pytest.approx(0.25)


def test_many_generators_are_some_and_the_others():
    num = 3 * MAX_GROUPS
    writers = [f"g{i}" for i in range(num)] + ["g99"]
    found = group_effects(
        np.arange(num + 1.0), np.ones(num + 1), writers, ["x"] * (num + 1), *DRAWS
    )
    assert len(found) == MAX_GROUPS and next(iter(found)) == "g99"
    assert found[OTHERS].num_answers == num - MAX_GROUPS + 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_named(value):
    for function in (generator_style, choices):
        with pytest.raises(InputError, match="answer 1, to problem 'y', is not a finite"):
            function([1.0, value], [0, 1], ["a", "b"], ["x", "y"], *DRAWS)
    with pytest.raises(InputError, match="1 scores, 2 labels and 2 problems"):
        choices([1.0], [0, 1], ["a", "b"], ["x", "y"], *DRAWS)


def test_rank_correlations_by_hand():
    left = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 2.0], [np.nan, 1.0, np.nan], [3.0, 1.0, np.nan]])
    right = np.array([[3.0, 2.0, 1.0], [0.0, 0.0, 9.0], [1.0, 1.0, 1.0], [1.0, 5.0, 2.0]])
    assert rank_correlations(left, right) == pytest.approx([-1, 1, np.nan, -1], nan_ok=True)


def test_a_group_is_held_against_equally_right_answers_only(answers):
    """Right answers are in one script; the score follows what is right, not the script."""
    problems, _, _, correct, noise = answers
    is_foreign = np.random.default_rng(2).random(len(correct)) < np.where(correct == 1, 0.8, 0.2)
    groups = ["cjk" if foreign else "latin" for foreign in is_foreign]
    fair = group_effects(3 * correct + noise, correct, groups, problems, *DRAWS)
    assert fair["cjk"].share_right > 0.7 > 0.4 > fair["latin"].share_right
    assert fair["cjk"].difference.low < 0 < fair["cjk"].difference.high
    biased = group_effects(correct + is_foreign + 0.1 * noise, correct, groups, problems, *DRAWS)
    assert biased["cjk"].difference.low > 0.2
    alone = group_effects([1.0, 2.0], [1, 0], ["cjk", "latin"], ["x", "x"], *DRAWS)
    assert alone["cjk"].difference is None and group_effects([], [], [], [], *DRAWS) == {}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The answer is 7.", "latin"),
        ("Ответ: 7", "cyrillic"),
        ("答案是七 (seven)", "latin"),
        ("答案是七", "cjk"),
        ("七七七七 (abc)", "cjk"),
        ("\u0627\u0644\u062c\u0648\u0627\u0628 7", "arabic"),
        ("7 + 8 = 15", NO_LETTERS),
        ("", NO_LETTERS),
    ],
)
def test_scripts(text, script):
    assert script_of(text) == script


@pytest.mark.parametrize(
    ("text", "fence"),
    [
        ("```python\nx = 1\n```", "python"),
        ("So:\n  ~~~Py\nx = 1\n  ~~~\nDone.", "python"),
        ("```js\nx\n```\n```java\nint longer = 1;\n```", "java"),
        ("```\nx\n```", UNTAGGED),
        ("```{r}\nx\n```", UNTAGGED),
        ("```c++\nint x;", "cpp"),
        ("````markdown\n```py\nx\n```\n````", "markdown"),
        ("Use `x = 1` here.", NO_CODE),
        ("", NO_CODE),
    ],
)
def test_fences(text, fence):
    assert fence_of(text) == fence


def test_the_share_of_code():
    assert code_share("```py\nabcd\n```") == pytest.approx(5 / len("```py\nabcd\n```"))
    assert code_share("no code") == 0.0 and code_share("") == 0.0


def test_the_score_by_length_is_above_the_problems_mean(answers):
    problems, _, _, correct, noise = answers
    difficulty = np.repeat(np.random.default_rng(3).normal(size=NUM_PROBLEMS) * 50, 8)
    lengths = np.exp(noise + 5)
    found = score_by_length(lengths, correct + noise + difficulty, correct, problems, *DRAWS)
    right, wrong = found["lines"]["right"], found["lines"]["wrong"]
    assert sum(right["num"]) + sum(wrong["num"]) == len(problems)
    assert right["score"] == sorted(right["score"]) and wrong["score"] == sorted(wrong["score"])
    assert np.mean(right["score"]) - np.mean(wrong["score"]) == pytest.approx(1, abs=0.25)
    assert all(a <= m <= b for a, m, b in zip(right["low"], right["score"], right["high"],
                                              strict=True))  # fmt: skip
    assert abs(np.array([y for _, y, _ in found["points"]])).max() < 10
    flat = score_by_length([5.0] * 4, [1, 2, 3, 4], [1, 1, 1, 1], list("xxyy"), *DRAWS)
    assert flat["lines"]["wrong"]["length"] == [] and len(flat["points"]) == 4


def _pool(num_candidates, hacked):
    """The very highest scores of a hacked reward are of wrong answers."""
    random = np.random.default_rng(4)
    correct = (random.random((60, num_candidates)) < 0.4).astype(float)
    scores = correct + random.normal(size=correct.shape)
    if hacked:
        loud = random.random(correct.shape) < 0.03
        scores, correct = np.where(loud, 9.0, scores), np.where(loud, 0.0, correct)
    problems = np.repeat([f"p{i}" for i in range(60)], num_candidates)
    models: list[str | None] = ["a", None] * (problems.size // 2)
    texts = [f"{n}" for n in range(problems.size)]
    return ScoredPool("p", problems.tolist(), correct.ravel().tolist(), scores.ravel().tolist(),
                      models, texts)  # fmt: skip


def test_over_optimisation_is_seen_up_to_256_candidates():
    hacked = best_of_pool(_pool(256, True), DRAWS)
    assert hacked.ks[-1] == 256 and hacked.is_seen and 1 < hacked.peak_k < 256
    assert hacked.drop.low > 0.2 and hacked.oracle[-1] == 1.0
    honest = best_of_pool(_pool(256, False), DRAWS)
    assert not honest.is_seen and honest.drop.mean < 0.05


def test_a_pool_without_names_or_texts_says_so():
    whole = measure_pool(_pool(4, False), DRAWS)
    assert whole["num_generators"] == 1 and whole["num_unnamed"] == 120
    assert whole["generators"] is None and whole["choices"] is None
    assert whole["scripts"]["no letters"]["num_answers"] == 240
    single = ScoredPool("one", ["x", "y"], [1.0, 0.0], [0.5, 0.1], ["a", "b"], ["s", "t"])
    found = measure_pool(single, DRAWS)
    assert found["over_optimisation"] is None and found["style"] is None
    assert found["generators"] is None and found["num_generators"] == 2
