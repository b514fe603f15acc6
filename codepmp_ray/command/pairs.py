"""`codepmp pairs`: what synthesis costs, the pairs, second tries, opt-outs, label noise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.extras import require_extras
from codepmp_ray.command.registry import command
from codepmp_ray.errors import ConfigError, InputError

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe

_STAGE = "synthesis-<fingerprint>/ in run_dir"


@command(
    "pairs plan",
    job="plan",
    needs="A finished corpus, and the models of `engines`.",
    writes="Nothing: it prints devices, hours, price and the split of the engines.",
    examples=(
        "pairs plan --config laptop",
        "pairs plan -c qwen2-1.5b-math planning.num_gpus=64 planning.price_per_gpu_hour=2",
    ),
    sections=("planning",),
)
def plan(recipe: "Recipe") -> dict[str, Any]:
    """Measure a pilot and say what synthesis will cost.

    planning.num_rows, planning.num_gpus and planning.price_per_gpu_hour ask for another size than
    the one at hand.
    """
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.plan import plan_synthesis

    require_extras(recipe, ("synthesis",))
    with connect():
        return plan_synthesis(recipe, print)


@command(
    "pairs make",
    job="synthesize",
    needs="A finished corpus (web_pairs needs threads, commits a git repository), the models of "
    "`engines`, and vLLM; web_pairs, commits and continuation need no model.",
    writes=f"{_STAGE}: pairs/ and rejected/, and the data card README.md.",
    examples=(
        "pairs make --config laptop",
        "pairs make -c qwen2-1.5b-math synthesis.chosen.max_tokens=512",
    ),
    sections=("synthesis", "engines"),
    makes=("synthesis",),
)
def make(recipe: "Recipe") -> dict[str, Any]:
    """Make preference pairs: describe each snippet, answer strongly, answer weakly."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.synthesis import synthesize

    with connect():
        summary = synthesize(recipe)
    print(
        f"{summary['num_pairs']} pairs from {summary['num_snippets']} snippets, "
        f"{summary['num_rejected']} rejected: {summary['rejected_by_reason']}"
    )
    return summary


@command(
    "pairs replay",
    job="replay",
    needs="Finished pairs, their corpus and the models of `engines`.",
    writes=f"{_STAGE}, in place: replayed rows take the place of rejected ones.",
    examples=(
        "pairs replay --config laptop --reason engine_error",
        "pairs replay -c laptop --reason chosen_cut_off --reason rejected_cut_off",
    ),
    sections=("engines",),
)
def replay(
    recipe: "Recipe",
    reason: Annotated[
        list[str] | None, Option("--reason", metavar="R", help="Reject reason; repeatable.")
    ] = None,
) -> dict[str, Any]:
    """Run rejected snippets of chosen reasons again, with the same settings; pairs stay.

    For what chance or a sick engine decided: engine_error, *_cut_off, *_parse_error. Other settings
    are another recipe, whose stage is made anew. The same command finishes a replay that was
    killed.
    """
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.replay import replay as run_round

    _require_own(recipe)
    require_extras(recipe, ("synthesis",))
    with connect():
        record = run_round(recipe, tuple(reason or ()))
    _rewritten(recipe)
    print(
        f"replay of {', '.join(record['reasons'])}: {record['num_rows']} rows again, "
        f"{record['num_pairs']} became pairs; rejected: {record['rejected_by_reason']}"
    )
    _warn_of_training(recipe, record["num_pairs"], "with the new pairs")
    return record


# Option -> what it names.
_NAMES = {
    "repo": "repositories",
    "path": "files, as REPO:PATH",
    "blob-id": "files by git blob id",
    "source-id": "files (column source_id)",
}
_LISTED = "A text file of them, one per line."
_Names = list[str] | None


@command(
    "pairs purge",
    job="purge",
    needs="A finished corpus or finished pairs.",
    writes="All stages of run_dir, in place: purged rows become rejected ones without texts.",
    examples=(
        "pairs purge --config laptop --repo owner/name",
        "pairs purge -c laptop --path owner/name:src/a.py --blob-id-file opted-out.txt",
    ),
)
def purge(
    recipe: "Recipe",
    repo: Annotated[_Names, Option(metavar="X", help=f"{_NAMES['repo']}; repeatable.")] = None,
    repo_file: Annotated[Path | None, Option(metavar="FILE", help=_LISTED)] = None,
    path: Annotated[_Names, Option(metavar="X", help=f"{_NAMES['path']}; repeatable.")] = None,
    path_file: Annotated[Path | None, Option(metavar="FILE", help=_LISTED)] = None,
    blob_id: Annotated[_Names, Option(metavar="X", help=f"{_NAMES['blob-id']}.")] = None,
    blob_id_file: Annotated[Path | None, Option(metavar="FILE", help=_LISTED)] = None,
    source_id: Annotated[_Names, Option(metavar="X", help=f"{_NAMES['source-id']}.")] = None,
    source_id_file: Annotated[Path | None, Option(metavar="FILE", help=_LISTED)] = None,
) -> dict[str, Any]:
    """Take repositories or files out of a run's snippets and pairs, for example after an opt-out.

    Those of a purged source become rejected rows without texts (reason `purged`). The request is
    recorded: later stages of the run leave the names out, the same command finishes a purge that
    was killed, and changes nothing when run again. A name that matches nothing is an error, at the
    end.
    """
    from codepmp_ray.analysis.diversity_report import remove_diversity
    from codepmp_ray.runs import Stage, open_stage
    from codepmp_ray.synthesis.purge import PurgeRequest, purge_run

    request = PurgeRequest(
        repos=_named(repo, repo_file),
        paths=_named(path, path_file),
        blob_ids=frozenset(name.lower() for name in _named(blob_id, blob_id_file)),
        source_ids=_named(source_id, source_id_file),
    )
    if not any(request.lists.values()):
        options = ", ".join(f"--{name}" for name in _NAMES)
        raise ConfigError("Nothing to purge was named.", f"Give {options} or a file.")
    if wrong := sorted(path for path in request.paths if ":" not in path):
        raise ConfigError(
            f"--path {wrong[0]!r} names no repository.",
            "Write REPO:PATH with the values of the columns repo and path; :PATH if repo is null.",
        )
    own, records = open_stage(recipe, "synthesis"), {}

    def tell(stage: Stage, record: dict[str, Any]) -> None:
        what = "snippets" if stage.name == "corpus" else "pairs"
        print(
            f"purge {record['purge_id']}: {record[f'num_{what}']} {what} and "
            f"{record['num_rejected']} rejected rows purged in {record['num_shards']} shards of "
            f"{stage.uri}"
        )
        records[stage.uri] = record
        if stage.uri == own.uri and "synthesis" not in recipe.reuse:
            _rewritten(recipe)
        elif stage.name == "synthesis":
            remove_diversity(stage)

    purge_run(recipe, request, tell)
    num_changed = sum(record["num_shards"] for record in records.values())
    _warn_of_training(recipe, num_changed, "without the purged pairs")
    return records


@command(
    "pairs noise",
    job="label_noise",
    needs="Two different models in `engines`, a task with tests (candidates.task), and vLLM.",
    writes="label-noise-<task>-<fingerprint>.json in run_dir, and the stages of both models.",
    examples=(
        "pairs noise --config qwen2-1.5b-math candidates.task=humaneval",
        "pairs noise -c qwen2-1.5b-math candidates.task=mbpp candidates.num_eval_samples=1",
    ),
    sections=("candidates", "engines"),
)
def noise(recipe: "Recipe") -> dict[str, Any]:
    """Measure how often the "chosen" label is wrong: both models answer problems with tests.

    Each model samples as it does in synthesis (synthesis.chosen and synthesis.rejected). The
    problems are those of candidates.task, train and eval parts together, with
    candidates.num_eval_samples answers each.
    """
    from dataclasses import asdict

    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.label_noise import measure_label_noise

    require_extras(recipe, ("candidates",))
    with connect():
        result, where = measure_label_noise(recipe)
    confidence = f"{recipe.evaluation.confidence:.0%}"
    print(f"{result.num_problems} problems of {recipe.candidates.task}, {confidence} intervals:")
    for label, interval in (
        ("strong model passes", result.strong_accuracy),
        ("weak model passes", result.weak_accuracy),
        ("only the strong answer passes", result.right),
        ("only the weak answer passes", result.wrong),
        ("both pass", result.both_pass),
        ("both fail", result.both_fail),
    ):
        print(f"  {label}: {interval.mean:.1%} ({interval.low:.1%} to {interval.high:.1%})")
    if result.noise is None:
        print("Label noise: unknown, the two models never differed.")
    else:
        found = result.noise
        print(
            f"Label noise of 'strong is better', where tests tell the answers apart: "
            f"{found.mean:.1%} ({found.low:.1%} to {found.high:.1%})"
        )
    print(where)
    return asdict(result) | {"file": where}


def _require_own(recipe: "Recipe") -> None:
    """Pairs of other settings are not rewritten with these: their card would not be theirs."""
    if fingerprint := recipe.reuse.get("synthesis"):
        raise InputError(
            f"synthesis-{fingerprint} is reused: it was made with other settings than these.",
            "Run this with the recipe that made it, without --reuse.",
        )


def _rewritten(recipe: "Recipe") -> None:
    """What was said of the pairs before they changed is said anew."""
    from codepmp_ray.analysis.card import write_card
    from codepmp_ray.analysis.diversity_report import remove_diversity
    from codepmp_ray.runs import open_stage
    from codepmp_ray.synthesis.constructions import all_hops
    from codepmp_ray.synthesis.prompts import prompt_texts

    remove_diversity(open_stage(recipe, "synthesis"))
    write_card(recipe, prompt_texts(all_hops(recipe.synthesis), recipe.synthesis.prompts))


def _warn_of_training(recipe: "Recipe", num_changed: int, how: str) -> None:
    from codepmp_ray.runs import open_stage

    trained = open_stage(recipe, "pretraining")
    if num_changed and trained.exists:
        print(f"{trained.uri} was made before: remove it to train {how}.")


def _named(given: _Names, file: Path | None) -> frozenset[str]:
    from codepmp_ray.corpus.filters.opt_out import read_entries

    try:
        return frozenset(given or ()) | (read_entries(file) if file else frozenset())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read: {error}.", "Name a UTF-8 text file with one name per line."
        ) from error
