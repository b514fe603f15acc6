"""jobs.audit with a client whose reward is known, and the gate before serving."""

import io
import json
import re

import pytest
from rich.console import Console

from codepmp_ray.client import CandidateScore
from codepmp_ray.config.accuracy import AccuracyConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.audit.pools import evaluated_pool, load_audit_pools
from codepmp_ray.evaluation.audit.report import print_audit
from codepmp_ray.evaluation.audit.run import audit, folder_of
from codepmp_ray.evaluation.audit.served import require_passed_audit
from codepmp_ray.evaluation.pairwise.pairs import load_pairs
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.records import CANDIDATE, GRADE, SCORE, table_from_rows
from codepmp_ray.runs import open_stage
from codepmp_ray.storage import open_store

pytestmark = pytest.mark.slow

EDITS = ("padding", "repetition", "flattery", "certainty", "markdown", "wrong_final_answer",
         "unfinished")  # fmt: skip


class RewardOf:
    """A client that scores texts with a function."""

    def __init__(self, reward):
        self.reward, self.calls, self.sizes = reward, 0, []

    def score(self, prompt, candidates):
        self.calls += 1
        self.sizes.append(len(candidates))
        return [CandidateScore(self.reward(text), 9, False) for text in candidates]


def honest(text):
    """Right answers end with 7; whoever ends otherwise, or not at all, gets nothing."""
    return float("is 7" in text) + 0.001 * (sum(map(ord, text)) % 7)


def wordy(text):
    return float(len(text))


def measure(recipe, client, model):
    pools = load_audit_pools(recipe.audit)
    return audit(recipe, load_pairs(recipe.accuracy), pools, client, model)


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
            "serving": {"model_path": "./some/model"},
        },
        "test",
    )


def test_an_honest_reward_passes_and_is_served(recipe):
    found = measure(recipe, RewardOf(honest), "./some/model")
    assert found["passed"] and found["num_pairs"] == 20
    assert found["accuracy"]["mean"] == 1.0
    assert found["edits"]["wrong_final_answer"]["wins"] == 0.0
    assert found["gate"]["not_measured"] == [] and found["choices"] is None
    json.dumps(found, allow_nan=False)
    require_passed_audit(recipe)
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    edits = ShardLedger(store).read("audit_scores")["edit"].to_pylist()
    assert edits.count("padding") == edits.count("chosen") == 20
    again = RewardOf(honest)
    measure(recipe, again, "./some/model")
    assert again.calls == 0
    screen = Console(file=io.StringIO(), width=120)
    print_audit(found, screen)
    assert "The model passes." in screen.file.getvalue() and "padding" in screen.file.getvalue()
    assert store.locate("audit.html") in screen.file.getvalue()
    page = store.read_bytes("audit.html").decode()
    assert "keeps all" in page and "gain by padding" in page and "<script" not in page


def test_a_reward_for_words_is_refused_until_the_limits_allow_it(recipe):
    found = measure(recipe, RewardOf(wordy), "./some/model")
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
    from codepmp_ray.command import serving as job

    wanted = recipe.serving.model_copy(update={"require_audit": True})
    with pytest.raises(InputError, match="holds no audit"):
        job.serve(recipe.model_copy(update={"serving": wanted}), [], None)
    # Asking for it makes no other model of it, and neither does evaluating elsewhere.
    measure(recipe, RewardOf(honest), "./some/model")
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
    assert evaluated_pool(recipe).texts is None  # the candidates are not there any more
    result = measure(recipe, RewardOf(honest), "m")
    (pool,) = result["pools"]
    found = pool["over_optimisation"]
    assert found["gold"][-1]["mean"] == 0.0 and found["peak_k"] == 1
    assert found["drop"]["mean"] == 0.75 and found["oracle"] == [0.75, 1.0, 1.0]
    assert pool["generators"] is None and pool["style"] is None and pool["lengths"] is None
    assert not result["passed"] and "over-optimisation" not in result["gate"]["not_measured"]
    candidates = [
        {"candidate_id": row["candidate_id"], "problem_id": row["problem_id"], "split": "eval",
         "completion": f"It is {number % 4}.", "model": "ab"[number % 2]}
        for number, row in enumerate(scores)
    ]  # fmt: skip
    place = open_stage(recipe, "candidates")
    place.ledger.commit(0, len(candidates), {"candidates": table_from_rows(candidates, CANDIDATE)})
    (pool,) = measure(recipe, RewardOf(honest), "m")["pools"]
    assert pool["name"] == "evaluation" and pool["num_generators"] == 2
    # "b" wrote the answers 1 and 3, "a" 0 and 2: of those that are right one of "b" is between.
    assert pool["generators"]["effects"]["b"]["difference"]["mean"] == pytest.approx(0)
    assert pool["scripts"] == {"latin": {"num_answers": 120, "share_right": 0.75,
                                         "difference": None}}  # fmt: skip


def write_pool(path, num_problems=12, num_candidates=6, question="Add {}."):
    """Every third answer is right; models "loud" and "plain" take turns and use other scripts."""
    lines = []
    for problem in range(num_problems):
        candidates = [
            {
                "text": f"{'It' if i % 2 else 'Верный ответ'} is {7 if i % 3 == 0 else 8} ({i}).",
                "model": "plain" if i % 2 else "loud",
                "correct": i % 3 == 0,
            }
            for i in range(num_candidates)
        ]
        row = {"problem_id": f"q{problem}", "candidates": candidates}
        lines.append(json.dumps(row | ({"question": question.format(problem)} if question else {})))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def likes_cyrillic(text):
    return honest(text) + 5.0 * ("ответ" in text)


def with_pools(recipe, *paths, **changes):
    update = {"pools": paths, "max_over_optimisation": 0.02, **changes}
    return recipe.model_copy(update={"audit": recipe.audit.model_copy(update=update)})


def test_a_pool_shows_who_is_preferred_and_in_which_script(recipe, tmp_path):
    path = write_pool(tmp_path / "pool.jsonl", num_problems=60)
    recipe = with_pools(recipe, path, max_generator_r2=0.5)
    serving = recipe.serving.model_copy(update={"max_candidates": 4})
    recipe = recipe.model_copy(update={"serving": serving})
    client = RewardOf(likes_cyrillic)
    found = measure(recipe, client, "./some/model")
    assert max(client.sizes[-120:]) == 4  # no request is larger than the service takes
    (pool,) = found["pools"]
    assert (pool["name"], pool["num_problems"], pool["num_answers"]) == ("pool.jsonl", 60, 360)
    assert pool["generators"]["generator_r2"]["mean"] > 0.8
    assert pool["generators"]["effects"]["loud"]["difference"]["low"] > 0.2
    assert pool["scripts"]["latin"]["difference"]["high"] < -0.2
    assert pool["choices"]["shares"]["same"]["accuracy"]["mean"] == 1.0
    assert pool["choices"]["shares"]["across"]["accuracy"]["mean"] < 0.6
    checks = {check["name"]: check["passed"] for check in found["gate"]["checks"]}
    assert not checks["variance by generator in pool.jsonl"]
    assert "fall with k in pool.jsonl" in checks and found["gate"]["not_measured"] == []
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    page = store.read_bytes("audit.html").decode()
    assert "Pool pool.jsonl" in page and "script: cyrillic" in page and 'id="pool0"' in page
    rows = ShardLedger(store.sub("pools")).read("audit_pool_scores").to_pylist()
    assert len(rows) == 360 and {row["model"] for row in rows} == {"loud", "plain"}
    again = RewardOf(likes_cyrillic)
    second = measure(recipe, again, "./some/model")
    assert again.calls == 0 and second["pools"] == found["pools"]
    fair = measure(recipe.model_copy(update={"run_dir": str(tmp_path / "fair")}),
                   RewardOf(honest), "./some/model")["pools"][0]  # fmt: skip
    assert fair["choices"]["shares"]["across"]["accuracy"]["mean"] == 1.0
    assert fair["over_optimisation"]["gold"][-1]["mean"] == 1.0


def test_pairs_that_name_their_models_are_told_apart(recipe, tmp_path):
    path = tmp_path / "bench.jsonl"
    rows = [
        {"id": i, "subset": "hep-go", "prompt": f"What is {i}?", "chosen": f"It is 7 ({i}).",
         "rejected": f"It is 8 ({i}).", **writers}
        for i, writers in enumerate(
            3 * [{"chosen_model": "good", "rejected_model": "bad"}] * 4
            + 3 * [{"chosen_model": "bad", "rejected_model": "good"}]
            + 2 * [{"chosen_model": "bad", "rejected_model": "bad"}]
            + [{"chosen_model": "good"}, {}]
        )
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    accuracy = AccuracyConfig(tasks=[{"name": "reward_bench", "path": str(path)}])
    recipe = recipe.model_copy(update={"accuracy": accuracy})
    prefers_good = {row["chosen"]: row.get("chosen_model") == "good" for row in rows}
    prefers_good |= {row["rejected"]: row.get("rejected_model") == "good" for row in rows}
    found = measure(recipe, RewardOf(lambda text: float(prefers_good.get(text, 0))), "./some/model")
    shares = found["choices"]["shares"]
    assert sum(shares[name]["num_pairs"] for name in ("same", "across")) == 17
    assert shares["same"]["accuracy"]["mean"] == 0.5 and shares["same"]["num_pairs"] == 2
    assert shares["with_prior"]["accuracy"]["mean"] == 1.0
    assert shares["against_prior"]["accuracy"]["mean"] == 0.0
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    assert "Pairs by who wrote the two answers" in store.read_bytes("audit.html").decode()


def test_names_of_strangers_do_no_harm_on_the_page(recipe, tmp_path):
    path = tmp_path / "pool.jsonl"
    name = "<img src=x>$\\frac{\u202e"
    write_pool(path)
    path.write_text(path.read_text().replace("plain", json.dumps(name)[1:-1]))
    found = measure(with_pools(recipe, str(path)), RewardOf(honest), "./<b>model</b>")
    store = open_store(recipe.run_dir).sub(folder_of(with_pools(recipe, str(path))))
    page = store.read_bytes("audit.html").decode()
    assert found["pools"][0]["generators"]["effects"].keys() == {name, "loud"}
    assert "&lt;img src=x&gt;$\\frac{\\u202e" in page and "&lt;b&gt;model" in page
    assert (
        "<img" not in page
        and "\u202e" not in page
        and "http://" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    )


def test_scoring_of_pools_goes_on_where_it_ended(recipe, tmp_path):
    recipe = with_pools(recipe, write_pool(tmp_path / "pool.jsonl"))

    class Dies(RewardOf):
        def score(self, prompt, candidates):
            if prompt.startswith("Add") and self.calls > 26:
                raise ConnectionError("gone")
            return super().score(prompt, candidates)

    with pytest.raises(ConnectionError):
        measure(recipe, Dies(honest), "./some/model")
    again = RewardOf(honest)
    whole = measure(recipe, again, "./some/model")
    assert 0 < again.calls < 12
    other = recipe.model_copy(update={"run_dir": str(tmp_path / "other")})
    assert measure(other, RewardOf(honest), "./some/model")["pools"] == whole["pools"]


def test_the_cut_of_a_pool_is_the_same_wherever_its_rows_stand(recipe, tmp_path):
    path = tmp_path / "pool.jsonl"
    write_pool(path, num_candidates=8)
    cut = with_pools(recipe, str(path), max_problems=5, max_candidates=3).audit
    (first,) = load_audit_pools(cut)
    before = folder_of(with_pools(recipe, str(path)))
    path.write_text("".join(sorted(path.read_text().splitlines(True), reverse=True)))
    assert folder_of(with_pools(recipe, str(path))) != before  # another content
    (second,) = load_audit_pools(cut)
    assert first == second and first.num_unused == 12 * 8 - 15
    kept = [[answer.place for answer in question.answers] for question in first]
    assert all(len(numbers) == 3 and numbers == sorted(numbers) for numbers in kept)
    assert len({tuple(numbers) for numbers in kept}) > 2  # not simply the first ones
    # Two files of one name are told apart.
    (tmp_path / "more").mkdir()
    more = write_pool(tmp_path / "more" / "pool.jsonl")
    names = [pool.name for pool in load_audit_pools(with_pools(recipe, str(path), more).audit)]
    assert names == ["1-pool.jsonl", "2-pool.jsonl"]


def test_pools_that_cannot_be_scored_are_refused_before_anything_is(recipe, tmp_path):
    blank = write_pool(tmp_path / "blank.jsonl", question=None)
    with pytest.raises(InputError, match=r"12 problems.*none of them with its question"):
        load_audit_pools(with_pools(recipe, blank).audit)
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"question": "q", "candidates": [{"text": "a"}, {"text": "b"}]}\n')
    with pytest.raises(InputError, match="no candidate with a label"):
        load_audit_pools(with_pools(recipe, str(bare)).audit)
    with bare.open("a") as file:
        file.write('{"question": "r", "candidates": [{"text": "a", "label": true}]}\n')
    (pool,) = load_audit_pools(with_pools(recipe, str(bare)).audit)
    assert pool.reject_counts == {"bad_label": 2} and len(pool.questions) == 1
    # One candidate is nothing to choose from: not measured, not zero.
    found = measure(with_pools(recipe, str(bare)), RewardOf(honest), "./some/model")
    assert found["gate"]["not_measured"] == ["over-optimisation"]
    assert found["pools"][0]["over_optimisation"] is None and found["pools"][0]["style"] is None


def test_a_score_that_is_no_number_is_named(recipe, tmp_path):
    recipe = with_pools(recipe, write_pool(tmp_path / "pool.jsonl"))
    reward = RewardOf(lambda text: float("nan") if "(4)" in text else honest(text))
    with pytest.raises(InputError, match=r"to problem 'q\d+', is not a finite number"):
        measure(recipe, reward, "./some/model")
