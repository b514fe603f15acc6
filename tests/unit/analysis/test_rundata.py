import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from codepmp_ray.analysis.closing import Rule, filled, forest, print_summary
from codepmp_ray.analysis.report import write_report
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


def _printed(maker, encoding: str = "utf-8", width: int = 160) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    print_summary(maker.recipe, Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_the_end_is_a_sentence_a_table_and_a_plot(maker):
    maker.all_stages()
    path = Path(write_report(maker.recipe))
    lines = _printed(maker).splitlines()
    assert lines[0].startswith("Too small to tell")
    assert lines[1].strip() == "Best of 4 on 36 HumanEval problems, with 95 % intervals"
    rows = [line.split("│")[1:4] for line in lines if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["reward model", "33.3", "+8.3 (-1.7 to +18.3)"],
        ["random pick", "25.0", ""],
        ["longest answer (best null rule)", "27.0", "+2.0 (-8.0 to +12.0)"],
        ["majority vote", "30.0", "+5.0 (-5.0 to +15.0)"],
        ["any right one (oracle)", "90.0", "+65.0 (+55.0 to +75.0)"],
    ]
    assert [line.split("  ")[0] for line in lines if "●" in line] == [
        "reward model", "longest answer", "majority vote",
    ]  # fmt: skip
    assert lines[-1] == f"Report: {path}" and lines[-2].startswith("All stages: ")


def test_a_terminal_without_these_characters_gets_others(maker):
    maker.all_stages()
    text = _printed(maker, "ascii")
    assert "reward model" in text and "---o---" in text


def test_no_line_begins_with_a_percent_sign():
    text = "Best of 8 solves 40.0 % of 100 problems, a random pick 24.5 %: +15.5 (95 % interval)."
    for width in range(20, 120):
        lines = filled(text, width).splitlines()
        assert not any(line.startswith("%") for line in lines), lines
        assert max(map(len, lines)) <= width and " ".join(lines) == text


def test_intervals_stand_where_they_are():
    shown = [Rule("reward_model", (0.5, 0.4, 0.6), (0.2, 0.1, 0.3)),
             Rule("majority", (0.3, 0.2, 0.4), (-0.1, -0.2, 0.0))]  # fmt: skip
    first, second, limits = forest(shown, 72, "[-o]|")
    start = len("majority vote") + 2
    assert first[start:] == " " * 20 + "|" + " " * 9 + "[" + "-" * 9 + "o" + "-" * 9 + "]"
    assert second[start:] == "[" + "-" * 9 + "o" + "-" * 9 + "]"
    assert limits.strip() == "-20 to +30 points, | is a random pick"


def test_without_an_evaluation_that_is_said(maker):
    maker.corpus()
    lines = _printed(maker).splitlines()
    assert lines == ["No verdict: the best-of-N evaluation of this run is missing.",
                     "All stages: 3.2 s"]  # fmt: skip
