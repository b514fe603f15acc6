import json

import pytest

from codepmp_ray.analysis.rundata import load_run


def test_counts_come_from_the_tables(maker):
    maker.all_stages()
    run = load_run(maker.recipe)
    assert run.corpus and run.synthesis and run.sampling
    # 12 snippets, two per file, and 4 rejected rows of 4 other files
    assert (run.corpus.num_files, run.corpus.num_snippets, run.corpus.num_rejected) == (10, 12, 4)
    assert run.corpus.reasons == {"too_short": 3, "binary": 1}
    assert (run.synthesis.num_snippets, run.synthesis.num_pairs) == (10, 8)
    assert run.synthesis.lengths.chosen.mean == 13.5
    assert run.synthesis.lengths.bias.chosen_longer == 0.0
    train, evaluation = run.sampling.splits
    assert (train.split, train.num_problems, train.num_answers, train.num_passed) == (
        "train",
        2,
        8,
        2,
    )
    assert (evaluation.num_problems, evaluation.num_graded, evaluation.num_passed) == (3, 12, 3)


def test_nothing_is_there(maker):
    run = load_run(maker.recipe)
    assert {state.status for state in run.stages.values()} == {"missing"}
    assert run.corpus is run.synthesis is run.pretraining is run.sampling is run.evaluation is None
    assert run.total_duration_s is None


def test_unfinished_stage_has_its_rows_so_far(maker, make_step):
    maker.training("pretraining", [make_step(1)], [], done=False)
    run = load_run(maker.recipe)
    assert run.stages["pretraining"].status == "unfinished"
    assert run.pretraining and run.pretraining.num_steps == 1


def test_steps_logged_again_after_a_resume_count_once(maker, make_step, make_held_out):
    again = {**make_step(2), "loss": 9.0}
    first, second = make_held_out(2, 0.5), make_held_out(4, 0.75, num_pairs=100)
    steps = [make_step(1), make_step(2), make_step(3), again]
    maker.training("finetuning", steps, [second, first])
    data = load_run(maker.recipe).finetuning
    assert data and [row["step"] for row in data.steps] == [1, 2, 3]
    assert data.steps[1]["loss"] == 9.0
    assert data.held_out and (data.held_out.accuracy, data.held_out.num_pairs) == (0.75, 100)
    assert data.held_out.low == pytest.approx(0.657, abs=1e-3)


def test_a_metric_line_cut_off_by_a_kill_is_counted(maker, make_step):
    stage = maker.training("pretraining", [make_step(1)], [])
    text = stage.store.read_bytes("metrics.jsonl") + b'\n{"step": 2, "lo\n[1]\n{"loss": 1}\n'
    stage.store.put("metrics.jsonl", text)
    data = load_run(maker.recipe).pretraining
    assert data and (data.num_steps, data.num_unreadable_lines) == (1, 3)


def test_picks_show_a_right_and_a_wrong_choice_first(maker):
    maker.all_stages()
    evaluation = load_run(maker.recipe).evaluation
    assert evaluation
    assert [pick.problem_id for pick in evaluation.picks] == [
        "HumanEval/2", "HumanEval/3", "HumanEval/4",
    ]  # fmt: skip
    right, wrong, _ = evaluation.picks
    assert right.candidates[0]["passed"] and not wrong.candidates[0]["passed"]
    scores = [candidate["score"] for candidate in right.candidates]
    assert scores == sorted(scores, reverse=True)


def test_answers_without_grades(maker):
    maker.sampling()
    (maker.run_path("grades") / "_commits" / "00000" / "00000000.json").unlink()
    sampling = load_run(maker.recipe).sampling
    assert sampling and sampling.splits[0].num_graded == 0
    assert sampling.splits[0].num_passed is None


def test_duration_falls_back_to_the_manifest(maker):
    stage = maker.synthesis([])
    manifest = json.loads(stage.store.read_bytes("manifest.json"))
    stage.store.put(
        "manifest.json", json.dumps({**manifest, "written": "2024-01-01T10:00:00Z"}).encode()
    )
    stage.store.put("complete.json", b'{"finished": "2024-01-01T10:02:05Z"}')
    assert load_run(maker.recipe).stages["synthesis"].duration_s == 125.0
