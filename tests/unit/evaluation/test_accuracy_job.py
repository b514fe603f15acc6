"""jobs.accuracy on a set in a file, with a client that gives every text its length as a reward."""

import io
import json
import sys
import types
from contextlib import contextmanager

import pytest
from rich.console import Console

from codepmp_ray.client import CandidateScore
from codepmp_ray.config.accuracy import AccuracyConfig
from codepmp_ray.config.recipe import parse_recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.pairwise.pairs import load_pairs
from codepmp_ray.evaluation.pairwise.run import folder_of, measure_accuracy, print_accuracy
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.scoring.calibration import temperature_of
from codepmp_ray.storage import open_store

ROWS = [
    {"prompt": "p1", "chosen": "long answer", "rejected": "no", "subset": "hep-go"},
    {"prompt": "p1", "chosen": "long answer", "rejected": "maybe", "subset": "hep-go"},
    {"prompt": "p2", "chosen": "a", "rejected": "bbb", "subset": "hep-js"},
    {"prompt": "p3", "chosen": "aa", "rejected": "bb", "subset": "hep-js"},
    {"prompt": "p4", "chosen": 5, "rejected": "bb", "subset": "hep-js"},
]


class LengthClient:
    """Rewards are lengths; counts what it is asked. `fail_after` requests it is interrupted."""

    def __init__(self, fail_after=None):
        self.calls = []
        self.fail_after = fail_after

    def score(self, prompt, candidates):
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise KeyboardInterrupt
        self.calls.append((prompt, list(candidates)))
        return [CandidateScore(float(len(text)), len(text), False) for text in candidates]


def measure(recipe, client, model):
    return measure_accuracy(recipe, load_pairs(recipe.accuracy), client, model)


@pytest.fixture
def recipe_of(tmp_path):
    file = tmp_path / "pairs.jsonl"

    def make(rows=ROWS, **accuracy):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        section = {"data": [{"path": str(file), "name": "mine"}], **accuracy}
        data = {
            "run_dir": str(tmp_path / "run"),
            "accuracy": section,
            "evaluation": {"num_bootstrap": 200, "endpoint": "http://127.0.0.1:9"},
        }
        return parse_recipe(data, "test")

    return make


def test_accuracy_is_that_of_the_scores_and_bad_rows_are_counted(recipe_of):
    recipe, client = recipe_of(), LengthClient()
    found = measure(recipe, client, "a model")
    assert found["all"]["mean"] == (1 + 1 + 0 + 0.5) / 4
    assert (found["all"]["num_pairs"], found["all"]["num_prompts"]) == (4, 3)
    assert found["rejected"] == {"mine": {"not_text": 1}}
    # One request for a prompt, with each text once.
    assert client.calls[0] == ("p1", ["long answer", "no", "maybe"]) and len(client.calls) == 3
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    assert json.loads(store.read_bytes("accuracy.json"))["model"] == "a model"
    rows = ShardLedger(store).read("pair_scores").to_pylist()
    assert [(row["chosen_score"], row["rejected_score"]) for row in rows] == [
        (11, 2), (11, 5), (1, 3), (2, 2),
    ]  # fmt: skip


def test_scored_prompts_are_not_scored_again(recipe_of):
    recipe = recipe_of(prompts_per_shard=1)
    with pytest.raises(KeyboardInterrupt):
        measure(recipe, LengthClient(fail_after=2), "m")
    second = LengthClient()
    found = measure(recipe, second, "m")
    assert [prompt for prompt, _ in second.calls] == ["p3"]
    assert found["all"]["num_pairs"] == 4


def test_sections_of_a_column_and_reward_bench_weights(recipe_of):
    recipe = recipe_of(section_column="subset", weights="reward_bench")
    found = measure(recipe, LengthClient(), "m")
    # Ties are wrong in RewardBench: hep-js has a wrong pair and a tie.
    assert [found["sections"][name]["mean"] for name in ("hep-go", "hep-js")] == [1.0, 0.0]
    assert found["reward_bench"]["sections"]["Reasoning"]["mean"] == 0.5
    assert found["longer_rule"]["hep-js"]["mean"] == 0.25
    assert found["reward_bench"]["missing"]
    screen = Console(file=io.StringIO(), width=100)
    print_accuracy(found, screen)
    shown = screen.file.getvalue()
    assert "hep-go" in shown and "RewardBench Reasoning: 50.0" in shown and "math-prm" in shown


def styled(row_id, domain, chosen, rejected):
    """A row of RM-Bench whose answers have these lengths, and so these rewards."""
    texts = [["x" * length for length in side] for side in (chosen, rejected)]
    row = {"id": row_id, "prompt": f"p{row_id}", "domain": domain}
    return row | dict(zip(("chosen", "rejected"), texts, strict=True))


def test_rm_bench_is_measured_by_style_and_domain(recipe_of, tmp_path):
    rows = [
        styled(0, "chat", [1, 5, 9], [1, 5, 9]),  # longer wins, ties are wrong
        styled(1, "safety-refuse", [7, 8, 9], [1, 2, 3]),
        styled(0, "safety-response", [1, 2, 3], [7, 8, 9]),
        styled(2, "code", [7, 8], [1, 2, 3]),
    ]
    file = tmp_path / "total_dataset.json"
    file.write_text(json.dumps(rows))
    recipe = recipe_of(data=[], tasks=[{"name": "rm_bench", "path": str(file)}])
    client = LengthClient()
    found = measure(recipe, client, "m")
    score = {name: part["mean"] for name, part in found["rm_bench"]["sections"].items()}
    assert [score[level] for level in ("hard", "normal", "easy")] == [0.25, 0.25, 0.75]
    assert score["chat"] == pytest.approx(1 / 3) and score["safety"] == pytest.approx(0.5)
    assert found["rm_bench"]["missing"] == ["math", "code"]
    assert score["Total"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["rejected"] == {"rm_bench": {"not_text": 1}}
    # Nine pairs of a row; rows of one prompt are one request, each text once.
    assert found["all"]["num_pairs"] == 27 and len(client.calls) == 2
    assert len(client.calls[1][1]) == 6
    assert found["sections"]["rm_bench/chat"]["num_ties"] == 3
    assert found["sections"]["rm_bench/chat"]["mean"] == pytest.approx(1 / 3)
    store = open_store(recipe.run_dir).sub(folder_of(recipe))
    variants = ShardLedger(store).read("pair_scores").column("variant").to_pylist()
    assert variants[:2] == ["concise/concise", "concise/detailed"]
    screen = Console(file=io.StringIO(), width=100)
    print_accuracy(found, screen)
    shown = screen.file.getvalue()
    assert "RM-Bench hard: 25.0" in shown and "RM-Bench's math, code" in shown
    before = folder_of(recipe)
    file.write_text(json.dumps(rows[:2]))
    assert folder_of(recipe) != before


def test_a_task_brings_reward_benchs_weights_and_stands_beside_other_sets(recipe_of, tmp_path):
    rows = [
        {"prompt": "a", "chosen": "long", "rejected": "no", "subset": "hep-go", "id": 1},
        {"prompt": "b", "chosen": "same", "rejected": "size", "subset": "hep-js", "id": 1},
        {"prompt": "c", "chosen": "x", "rejected": "y", "subset": "none", "id": 1},
    ]
    file = tmp_path / "reward_bench.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "reward_bench", "path": str(file)}
    found = measure(recipe_of(tasks=[task]), LengthClient(), "m")
    # Its own tie is wrong, that of the other set counts half.
    assert found["reward_bench"]["sections"]["Reasoning"]["mean"] == 0.5
    assert found["sections"]["reward_bench/hep-js"]["mean"] == 0.0
    assert found["sections"]["mine"]["mean"] == (1 + 1 + 0 + 0.5) / 4
    assert found["reward_bench"]["parts"].keys() == {"hep-go", "hep-js"}
    assert found["rejected"]["reward_bench"] == {"bad_label": 1}
    assert "rm_bench" not in found


def test_files_of_rm_benchs_repository_are_read_as_they_are(recipe_of, tmp_path):
    """A file for each domain, which is said by its name alone."""
    folder = tmp_path / "rm-bench"
    folder.mkdir()
    for name in ("chat_filtered", "safety-refuse_filtered"):
        rows = [styled(i, "x", [7, 8, 9], [1, 2, 3]) for i in range(2)]
        rows = [{key: value for key, value in row.items() if key != "domain"} for row in rows]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    recipe = recipe_of(data=[], tasks=[{"name": "rm_bench", "path": str(folder)}])
    found = measure(recipe, LengthClient(), "m")
    assert set(found["sections"]) == {"rm_bench/chat", "rm_bench/safety"}
    assert found["all"]["num_pairs"] == 36 and found["rejected"] == {}


def test_a_temperature_is_kept_beside_the_weights_where_it_serves(recipe_of, tmp_path):
    """The client's rewards are lengths: far too sure of themselves where they are often wrong."""
    rows = [
        {"prompt": f"p{i}", "chosen": "x" * (9 if i % 3 else 1), "rejected": "x" * 5}
        for i in range(400)
    ]
    recipe = recipe_of(rows, calibrate=True)
    with pytest.raises(ConfigError, match="Leave out one of the two"):
        measure(recipe, LengthClient(), "m")
    own = recipe.evaluation.model_copy(update={"endpoint": None})
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    serving = recipe.serving.model_copy(update={"model_path": str(model)})
    recipe = recipe.model_copy(update={"evaluation": own, "serving": serving})
    before = folder_of(recipe)
    found = measure(recipe, LengthClient(), str(model))
    assert found["temperature"]["is_kept"] and found["temperature"]["temperature"] > 1.5
    store = open_store(str(model))
    assert temperature_of(store) == pytest.approx(found["temperature"]["temperature"])
    assert folder_of(recipe) == before  # the weights are those that were measured
    assert found["calibration"]["auc"]["mean"] == pytest.approx(2 / 3, abs=0.01)
    few = recipe_of(rows[:50], calibrate=True).accuracy
    with pytest.raises(InputError, match="of each are needed"):
        measure(recipe.model_copy(update={"accuracy": few}), LengthClient(), str(model))


def test_tasks_are_named_in_short_and_never_twice():
    assert AccuracyConfig(tasks=("rm_bench", "hh_harmless")).tasks[0].path is None
    for wrong, words in (
        ({"tasks": ("rm_bench", "rm_bench")}, "names 'rm_bench' twice"),
        ({"tasks": ("math_shepherd",), "data": ({"kind": "math_shepherd"},)}, "another name"),
        ({"tasks": ("reward_bench",), "weights": "reward_bench"}, "asked for twice"),
        ({"tasks": ("gsm8k",)}, "Input should be 'math_shepherd'"),
    ):
        with pytest.raises(ValueError, match=words):
            AccuracyConfig(**wrong)


def test_copies_count_once_and_an_id_of_two_pairs_is_refused(recipe_of):
    copied = load_pairs(recipe_of([*ROWS[:3], ROWS[0]]).accuracy)
    assert (len(copied.pairs), copied.num_copies) == (3, 1)
    twice = [{**row, "pair_id": "same"} for row in ROWS[:2]]
    with pytest.raises(InputError, match="two different pairs with the pair_id 'same'"):
        load_pairs(recipe_of(twice).accuracy)


@pytest.mark.parametrize(
    ("rows", "accuracy", "words"),
    [
        (ROWS, {"data": []}, "names no preference set"),
        (ROWS, {"section_column": "kind"}, "kind=None, which names no section"),
        ([ROWS[4]], {}, "gives no pair; rejected rows: .*not_text"),
        ([{"question": "q"}], {}, "needs the columns chosen, rejected"),
    ],
)
def test_sets_that_cannot_be_used_are_refused(recipe_of, rows, accuracy, words):
    with pytest.raises(InputError, match=words):
        load_pairs(recipe_of(rows, **accuracy).accuracy)


def test_sections_of_sets_that_pair_rows_are_refused():
    with pytest.raises(ValueError, match="math_shepherd pairs rows up"):
        AccuracyConfig(data=({"kind": "math_shepherd"},), section_column="task")
    with pytest.raises(ConfigError, match=r"unknown key accuracy\.section"):
        parse_recipe({"accuracy": {"section": "x"}}, "test")


def test_another_model_or_other_rows_are_another_folder(recipe_of):
    recipe = recipe_of()
    other = recipe.model_copy(
        update={"evaluation": recipe.evaluation.model_copy(update={"endpoint": "http://else"})}
    )
    folders = [folder_of(recipe), folder_of(other), folder_of(recipe_of())]
    more = folder_of(recipe_of([*ROWS, {**ROWS[0], "prompt": "p9"}]))
    assert folders[0] == folders[2] and len({*folders, more}) == 3


def test_the_job_reads_the_sets_before_it_starts_a_model(recipe_of, monkeypatch, capsys):
    from codepmp_ray import client
    from codepmp_ray.command import evaluation as job

    started = []

    @contextmanager
    def running_service(recipe, model_path, with_tls, is_measuring):
        started.append(model_path)
        yield types.SimpleNamespace(url="http://127.0.0.1:9", api_key="sk-made")

    class Client(LengthClient):
        def __init__(self, url, key, hints):
            super().__init__()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    fake = types.ModuleType("codepmp_ray.serve.launch")
    fake.running_service = running_service
    monkeypatch.setitem(sys.modules, "codepmp_ray.serve.launch", fake)
    monkeypatch.setattr(client, "RewardClient", Client)
    recipe = recipe_of()
    served = recipe.model_copy(
        update={
            "evaluation": recipe.evaluation.model_copy(update={"endpoint": None}),
            "serving": recipe.serving.model_copy(update={"model_path": "./some/model"}),
        }
    )
    with pytest.raises(InputError, match="gives no pair"):
        job.pairs(served.model_copy(update={"accuracy": recipe_of([ROWS[4]]).accuracy}))
    assert started == []
    recipe_of()
    job.pairs(served)
    assert started == ["./some/model"]
    assert "62.5" in capsys.readouterr().out


def test_process_bench_is_scored_once_beside_the_pairs(recipe_of, tmp_path, capsys):
    file = tmp_path / "gsm8k.json"
    rows = [
        {"id": f"gsm8k-{i}", "problem": f"q{i}", "steps": ["one", "two"], "label": label}
        for i, label in enumerate([-1, 1, 0, -1])
    ]
    file.write_text(json.dumps(rows))
    recipe = recipe_of(process_bench=str(file))
    client = LengthClient()
    found = measure(recipe, client, "m")["process_bench"]
    assert found["parts"]["gsm8k"]["num_solutions"] == 4 and found["missing"][0] == "math"
    assert ("q0", ["one", "one\n\ntwo"]) in client.calls
    again = LengthClient()
    results = measure(recipe, again, "m")
    assert again.calls == [] and results["process_bench"] == found
    print_accuracy(results)
    assert "ProcessBench gsm8k, F1 of the first wrong step" in capsys.readouterr().out
    before = folder_of(recipe)
    file.write_text(json.dumps(rows[::-1]))
    assert folder_of(recipe) != before
