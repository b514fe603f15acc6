"""Problems that are made: every kind of the library, or a reason why it is refused."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codepmp_ray.config.evaluation import CandidatesConfig, GraderConfig, SandboxConfig
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.graders import verifiers
from codepmp_ray.evaluation.graders.verifiers import bare_answer, grade_by_verifier, library
from codepmp_ray.evaluation.grading import grade_candidates
from codepmp_ray.evaluation.problems import configured_problems, require_problems, split_problems
from codepmp_ray.evaluation.tasks.reasoning_gym import (
    REFUSED,
    open_kind,
    problem,
    question_key,
    rows,
)
from codepmp_ray.records import Outcome

ROOT = Path(__file__).resolve().parents[3]
# Prints what every kind makes, in a process of its own.
DIGEST = """
import json, sys
from codepmp_ray.evaluation.tasks.reasoning_gym import problem, rows
for kind in json.loads(sys.argv[1]):
    made = [problem(row, 0) for row in rows({kind: {"size": 1}}, 5)]
    print("\\n" + json.dumps([kind, [[p.problem_id, p.prompt, p.reference.answer] for p in made]]))
"""


def config(**changes: Any) -> CandidatesConfig:
    kinds = {"products": {"max_digits": 1, "size": 30}, "chain_sum": {"max_terms": 2, "size": 30}}
    given = {"task": "reasoning_gym", "kinds": kinds, "num_train_problems": 25}
    return CandidatesConfig.model_validate(given | {"num_eval_problems": 25} | changes)


@pytest.mark.rehearsal
def test_every_kind_is_the_same_everywhere_and_knows_right_from_wrong() -> None:
    kinds = sorted(set(library().DATASETS) - set(REFUSED))
    assert len(kinds) > 80
    faults: dict[str, Any] = {}
    here = []
    for kind in kinds:
        (made,) = (problem(row, 0) for row in rows({kind: {"size": 1}}, 5))
        here.append([kind, [[made.problem_id, made.prompt, made.reference.answer]]])
        # As it reaches a grading process.
        reference = pickle.loads(pickle.dumps(made.reference))
        own = grade_by_verifier(reference, reference.answer)
        try:
            other = grade_by_verifier(reference, "The answer is 7346512 xyz.").passed
        except ValueError:  # the pool's outcome `error`
            other = False
        if not own.passed or other or not made.prompt or made.canonical_answer:
            faults[kind] = (made.prompt, reference.answer, own, other)
    assert faults == {}
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", DIGEST, json.dumps(kinds)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    elsewhere = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    differ = [one[0] for one, other in zip(here, elsewhere, strict=True) if one != other]
    assert differ == []


# Called on a model's answer they would run it; `literal_eval` reads literals only.
EVALUATING = {"eval", "exec", "parse_expr", "sympify", "compile", "simplify", "N", "S"}
# They evaluate the problem's own text, or have a parser of their own of that name.
REVIEWED = {"bitwise_arithmetic", "number_sorting", "propositional_logic"}


def test_no_verifier_that_is_taken_evaluates_an_answer() -> None:
    """What `score_answer` calls, by name, with the helpers of its class and module."""
    found = {}
    for kind, (made_by, *_) in library().DATASETS.items():
        if calls := _calls(made_by) & EVALUATING:
            found[kind] = calls
    assert set(found) - set(REFUSED) == REVIEWED
    evaluating = {kind for kind, why in REFUSED.items() if "evaluates" in why}
    assert evaluating <= set(found)


def _calls(made_by: type) -> set[str]:
    """Names that `score_answer` calls, and those that the functions of its module then call."""
    tree = ast.parse(inspect.getsource(sys.modules[made_by.__module__]))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    waiting, calls = ["score_answer"], set[str]()
    while waiting:
        function = functions.get(waiting.pop())
        for node in ast.walk(function) if function else ():
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name not in calls:
                    calls.add(name)
                    waiting.append(name)
    return calls


def test_what_is_refused_exists_and_says_why() -> None:
    assert set(REFUSED) <= set(library().DATASETS)
    for kind, why in REFUSED.items():
        with pytest.raises(ConfigError, match=rf"kinds\.{kind} is refused: {why}"):
            open_kind(kind, {})


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"product": {}}, r"kinds\.product: there is no such kind\. Did you mean products\?"),
        ({"xyz": {}}, r"there is no such kind\. There are .*, products, "),
        ({"products": {"max_digit": 1}}, r"no parameter max_digit\. Did you mean max_digits\?"),
        ({"products": {"q": 1}}, r"no parameter q\. There are .*max_digits, .*size"),
        ({"products": {"seed": 1}}, r"no parameter seed\."),
        ({"products": {"min_digits": 3, "max_digits": 2}}, r"products=.*must be"),
        ({"products": {"max_digits": 1, "size": 56}}, r"makes 55 different .*not size=56.*Lower"),
    ],
)
def test_a_kind_that_cannot_be_made_is_refused(kinds: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_problems(config(kinds=kinds))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": {}}, "go with task=reasoning_gym"),
        ({"task": "gsm8k"}, "and with no other"),
        ({"pool_path": "x"}, "and pool_path are null"),
        ({"task_path": "x"}, "task_path and pool_path"),
    ],
)
def test_kinds_go_with_their_task_alone(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("reasoning_gym"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    library.cache_clear()
    with pytest.raises(InputError, match=r"No module.*pip install reasoning-gym") as caught:
        library()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    library.cache_clear()


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ("Solve: 3 * 4.", "Solve: 4 * 3.", True),
        ("Solve: 3 * 4.", "Multiply 4 * 3 now", True),  # another kind's words
        ("Solve: 3 * 4.", "Solve: 3 * 5.", False),
        ("3 + 4 =", "4 + 3 =", True),
        ("5 - 3 =", "5 + 3 =", False),
        ("5 - 3 + 2 =", "2 + 5 - 3 =", True),
        ("2 * 3 + 4", "4 + 3 * 2", True),
        ("2 * (3 + 4)", "(4 + 3) * 2", True),
        ("6 / 3", "6 * 3", False),
        ("12 * 3", "1 * 23", False),
        ("GCD of these numbers: 12, 8. Give", "GCD of these numbers: 8, 12. Give", True),
        ("LCM of 12 and 8", "LCM of 8 and 12", True),
        ("GCD of 12, 8", "LCM of 12, 8", False),
        ("How much is [0, 1] in it?", "How much is [1, 0] in it?", False),
        ("Is it [0, 1], 3 or 4, 5?", "Is it [0, 1], 3 or 5, 4?", True),
        ("All  a are b.", "All a are b.", True),
        ("All a are b.", "All b are a.", False),
    ],
)
def test_questions_that_ask_the_same_have_one_key(one: str, other: str, are_equal: bool) -> None:
    keys = {question_key("kind", question) for question in (one, other)}
    assert (len(keys) == 1) == are_equal


def test_no_fact_stands_on_both_sides_and_seeds_make_other_problems() -> None:
    split = split_problems(config())
    keys = [
        {question_key(made.problem_id.split("/")[1], made.prompt) for made in part}
        for part in split.values()
    ]
    assert [len(part) for part in keys] == [25, 25] and keys[0].isdisjoint(keys[1])
    ids = [made.problem_id for part in split.values() for made in part]
    turned = dict(reversed(config().kinds.items()))
    again = [
        made.problem_id for part in split_problems(config(kinds=turned)).values() for made in part
    ]
    assert ids == again and len(set(ids)) == 50
    # The library adds seed and index: its seed 1 would be its seed 0, moved by one.
    sums = [
        {name for name in configured_problems(config(split_seed=seed)) if "chain_sum" in name}
        for seed in (0, 1)
    ]
    assert len(sums[0] & sums[1]) < 5


@pytest.mark.parametrize(
    ("reference", "text", "answer"),
    [
        ("12", "3 * 4 = 12", "12"),
        ("12", "The answer is 12.0.", "12"),
        ("12", "The answer is 13, not 12", "13"),
        ("1.50", "It is 1.5", "1.50"),
        ("3/4", "So 6/8", "6/8"),
        ("12", "I cannot say", None),
        ("Yes", "Yes, it follows.", "Yes"),
        ("Yes", "no.", "no"),
        ("No", "**No**, it does not.", "No"),
        ("No", "No dogs are cats, so I wonder", None),
        ("No", "It may. The answer is: no, it does not", "No"),
        ("No", "Let us see.\nYes", "yes"),
        ("True", "False", "false"),
        ("cat", "The answer is **cat**.", "cat"),
        ("cat", " cat \n", "cat"),
        ("a b\nc d", "a b\nc d", "a b\nc d"),
        ("cat.", "The answer is cat.", "cat."),
        ("cat", "", None),
    ],
)
def test_the_final_answer_is_found_in_the_reference_s_form(
    reference: str, text: str, answer: str | None
) -> None:
    assert bare_answer(reference, text) == answer


def test_only_the_full_score_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    made = next(iter(configured_problems(config()).values()))
    for score, passed in ((1.0, True), (0.99, False), (0.01, False)):
        monkeypatch.setattr(verifiers, "score", lambda *_, given=score: given)
        assert grade_by_verifier(made.reference, made.reference.answer).passed is passed


@pytest.mark.slow
def test_answers_are_graded_in_processes_of_their_own() -> None:
    task = config()
    chosen = list(configured_problems(task).values())[::25]
    answers = [
        {
            "candidate_id": f"{made.problem_id} {text}",
            "problem_id": made.problem_id,
            "completion": text,
        }
        for made in chosen
        for text in (f"The answer is {made.reference.answer}.", "The answer is 4711.", "who knows")
    ]
    grades = grade_candidates(answers, task, SandboxConfig(), GraderConfig(num_parallel=1))
    expected = [Outcome.PASSED, Outcome.FAILED, Outcome.NO_ANSWER] * len(chosen)
    assert [row["outcome"] for row in grades] == list(map(str, expected))
    assert [row["passed"] for row in grades] == [True, False, False] * len(chosen)


def test_the_demonstration_has_its_problems() -> None:
    recipe = load_recipe(ROOT / "jobs/recipes/demo.yaml")
    split = split_problems(recipe.candidates)
    assert len(split["eval"]) >= 100 and len(split["train"]) >= 100
