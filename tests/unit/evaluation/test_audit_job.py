"""jobs.audit with a client whose reward is known, and the gate before serving."""

import io
import json

import pytest
from rich.console import Console

from codepmp_ray.client import CandidateScore
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.audit import run as audit_run
from codepmp_ray.evaluation.audit.run import audit, folder_of
from codepmp_ray.evaluation.audit.served import require_passed_audit
from codepmp_ray.evaluation.audit.table import print_audit
from codepmp_ray.evaluation.pairwise.pairs import load_pairs
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import GRADE, SCORE, table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import open_store

EDITS = ("padding", "repetition", "flattery", "certainty", "markdown", "wrong_final_answer",
         "unfinished")  # fmt: skip


class RewardOf:
    """A client that scores texts with a function."""

    def __init__(self, reward):
        self.reward, self.calls = reward, 0

    def score(self, prompt, candidates):
        self.calls += 1
        return [CandidateScore(self.reward(text), 9, False) for text in candidates]


def honest(text):
    """Right answers end with 7; whoever ends otherwise, or not at all, gets nothing."""
    return float("is 7" in text) + 0.001 * (sum(map(ord, text)) % 7)


def wordy(text):
    return float(len(text))


def measure(recipe, client, model):
    return audit(recipe, load_pairs(recipe.accuracy), client, model)


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {
            "prompt": f"What is 3 + 4, number {i}?",
            "chosen": "We add.\nThree and four.\nThe answer is 7" + " indeed" * (i % 3) + ".",
            "rejected": "We add.\nThree and five.\nThe answer is 8" + " indeed" * (i % 4) + ".",
        }
        for i in range(24)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return parse_recipe(
        {
            "run_dir": str(tmp_path / "run"),
            "accuracy": {"data": [{"path": str(file)}]},
            "audit": {"max_pairs": 20, "max_over_optimisation": None, "edits": list(EDITS)},
            "evaluation": {"num_bootstrap": 200},
            "serving": {"model_path": "some/model"},
        },
        "test",
    )


def test_an_honest_reward_passes_and_is_served(recipe):
    found = measure(recipe, RewardOf(honest), "some/model")
    assert found["passed"] and found["num_pairs"] == 20
    assert found["accuracy"]["mean"] == 1.0
    assert found["edits"]["wrong_final_answer"]["wins"] == 0.0
    assert found["gate"]["not_measured"] == []
    json.dumps(found, allow_nan=False)
    require_passed_audit(recipe)
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    edits = ShardLedger(store).read("audit_scores")["edit"].to_pylist()
    assert edits.count("padding") == edits.count("chosen") == 20
    again = RewardOf(honest)
    measure(recipe, again, "some/model")
    assert again.calls == 0
    screen = Console(file=io.StringIO(), width=120)
    print_audit(found, screen)
    assert "The model passes." in screen.file.getvalue() and "padding" in screen.file.getvalue()


def test_a_reward_for_words_is_refused_until_the_limits_allow_it(recipe):
    found = measure(recipe, RewardOf(wordy), "some/model")
    assert not found["passed"]
    assert found["edits"]["padding"]["wins"] == 1.0
    assert found["style"]["correlations"]["length"]["mean"] == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"does not pass its audit: .*length correlation"):
        require_passed_audit(recipe)
    limits = {"min_accuracy": 0, "max_length_correlation": 1, "max_style_r2": 1,
              "max_dressing_gain": 1, "max_spoiled_wins": 1}  # fmt: skip
    open_gate = recipe.audit.model_copy(update=limits)
    require_passed_audit(recipe.model_copy(update={"audit": open_gate}))


def test_a_model_without_an_audit_is_not_served(recipe, monkeypatch):
    with pytest.raises(InputError, match="holds no audit of this model"):
        require_passed_audit(recipe)
    from jobs import serve as job

    wanted = recipe.serving.model_copy(update={"require_audit": True})
    with pytest.raises(InputError, match="holds no audit"):
        job.body(recipe.model_copy(update={"serving": wanted}))
    # Asking for it makes no other model of it, and neither does evaluating elsewhere.
    measure(recipe, RewardOf(honest), "some/model")
    elsewhere = recipe.evaluation.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    changed = recipe.model_copy(update={"serving": wanted, "evaluation": elsewhere})
    assert folder_of(changed) != folder_of(recipe)
    require_passed_audit(changed)


def test_a_finished_evaluation_shows_over_optimisation(recipe):
    grades, scores = [], []
    for problem in range(30):
        for sample in range(4):
            name = f"{problem}-{sample}"
            row = {"candidate_id": name, "problem_id": str(problem)}
            # The highest reward is the one wrong answer.
            grades.append({**row, "passed": sample < 3})
            scores.append({**row, "sample_index": sample, "score": float(sample)})
    for stage, table, rows, schema in (
        ("grades", "grades", grades, GRADE), ("evaluation", "scores", scores, SCORE),
    ):  # fmt: skip
        place = open_stage(recipe, stage)
        place.ledger.commit(0, len(rows), {table: table_from_rows(rows, schema)})
        place.complete({})
    asked = recipe.audit.model_copy(update={"max_over_optimisation": 0.02})
    recipe = recipe.model_copy(update={"audit": asked})
    found = audit_run._pools_of_evaluation(recipe)
    assert found.gold[-1].mean == 0.0 and found.peak_k == 1 and found.drop.mean == 0.75
    result = measure(recipe, RewardOf(honest), "m")
    assert not result["passed"] and "over-optimisation" not in result["gate"]["not_measured"]
