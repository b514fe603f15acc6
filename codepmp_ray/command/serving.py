"""`codepmp serve` and `codepmp score`: rewards over HTTP, and of a file."""

import json
import os
import shlex
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import SUBMITTED_VARIABLE, command
from codepmp_ray.errors import ConfigError

if TYPE_CHECKING:
    from codepmp_ray.config.evaluation import ServingConfig
    from codepmp_ray.config.recipe import Recipe
    from codepmp_ray.serve.launch import ServiceHandle


@command(
    "serve",
    job="serve",
    words="MODEL",
    is_direct=True,
    needs="MODEL: a folder, URI or hub id of a reward model with one label; or a recipe with a "
    "finished one. A key in $CODEPMP_API_KEY, or one is made; a submitted job makes none.",
    writes="Nothing.",
    examples=("serve runs/laptop/finetuning-0123456789ab/model", "serve --config laptop"),
    sections=("serving",),
)
def serve(recipe: "Recipe", words: list[str], config: str | None) -> None:
    """Serve a reward model over HTTP until Ctrl-C or SIGTERM.

    POST /v1/bon scores candidates and names the best one; see the printed curl line. With MODEL and
    without --config no recipe is read; the engine is then vLLM where it and a GPU are there, else
    torch.
    """
    from codepmp_ray.command.extras import require_engine
    from codepmp_ray.runs import reward_model

    _require_key_of_one_s_own(recipe)
    if words:
        recipe = _with_model(recipe, words, 1, is_direct=config is None)
    require_engine("serving.engine", recipe.serving.engine)
    model = reward_model(recipe) if not words else str(recipe.serving.model_path)
    if recipe.serving.require_audit:
        from codepmp_ray.evaluation.audit.served import require_passed_audit

        require_passed_audit(recipe)  # the service asks too, but after a cluster was started
    from codepmp_ray.serve.launch import running_service

    _say_what_is_open(recipe.serving)
    was_up = False
    try:
        with running_service(recipe, model) as service:
            was_up = True
            print(describe(service), flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        # The way to end this job; before the service was up it is an interruption.
        if not was_up:
            raise
        print("Stopped.", file=sys.stderr)


@command(
    "score",
    job="score",
    words="MODEL FILE",
    is_direct=True,
    needs="MODEL (as `serve` takes it) and FILE: Parquet or JSON lines of prompts and candidates; "
    "or a recipe with batch_scoring.path and a finished model.",
    writes="A row with scores, ranks and the best candidate for each row: to standard output or "
    "--output with MODEL and FILE, to scoring-<fingerprint>/ in run_dir with a recipe.",
    examples=(
        "score runs/laptop/finetuning-0123456789ab/model answers.jsonl > rewards.jsonl",
        "score --config laptop batch_scoring.path=answers.parquet",
    ),
    sections=("batch_scoring", "serving"),
)
def score(
    recipe: "Recipe",
    words: list[str],
    config: str | None,
    output: Annotated[
        Path | None,
        Option(metavar="FILE", help="With MODEL and FILE: .jsonl or .parquet to write."),
    ] = None,
) -> dict[str, Any]:
    """Score prompts with their candidates in bulk.

    With MODEL and FILE and no recipe the plain torch scorer does it in this process, without Ray:
    the first rewards come within a minute. With a recipe it is a stage on Ray, with the engine of
    `serving`, that resumes.
    """
    if words:
        recipe = _with_model(recipe, words, 2, is_direct=config is None)
        if config is None:
            return _score_here(recipe, output)
    if output is not None:
        raise ConfigError(
            f"--output={output} is for MODEL and FILE without --config.",
            "A recipe's rewards lie in its run directory.",
        )
    from codepmp_ray.command.extras import require_engine

    require_engine("serving.engine", recipe.serving.engine)
    from codepmp_ray.cluster.batch_scoring import score_rows
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.runs import open_stage

    with connect():
        summary = score_rows(recipe)
    print(
        f"{summary['num_candidates']} candidates of {summary['num_scored']} of "
        f"{summary['num_rows']} rows scored: {open_stage(recipe, 'scoring').store.locate('scores')}"
    )
    for reason, count in summary["rejected_by_reason"].items():
        print(f"  rejected: {count} {reason}")
    return summary


def _require_key_of_one_s_own(recipe: "Recipe") -> None:
    """Raise ConfigError where a key would be made and shown in the log of a submitted job."""
    variable = recipe.evaluation.api_key_env
    if SUBMITTED_VARIABLE not in os.environ or recipe.serving.api_keys_file:
        return
    if not os.environ.get(variable):
        raise ConfigError(
            f"${variable} is not set, and a key that is made would stand in this job's log, for "
            "whoever may read the jobs API.",
            f"Name a file of digests on the nodes (serving.api_keys_file), or set {variable} "
            "there; `cluster submit --env` passes it on, for readers of that API to see.",
        )


def _say_what_is_open(config: "ServingConfig") -> None:
    if config.host not in ("127.0.0.1", "::1", "localhost") and not config.tls_cert_file:
        print(
            f"serving.host={config.host} without TLS: keys and texts pass in the clear. Set "
            "serving.tls_cert_file and tls_key_file, or let a proxy in front end TLS.",
            file=sys.stderr,
        )


def _with_model(recipe: "Recipe", words: list[str], num: int, *, is_direct: bool) -> "Recipe":
    """`recipe` with the model, and file, that the command line names.

    Without a recipe (`is_direct`) settings that nobody gave are those that suit the model.
    """
    from codepmp_ray.hub_models import at_commit
    from codepmp_ray.scoring.exported_model import suited

    if len(words) != num:
        raise ConfigError(
            f"{len(words)} words are given: {' '.join(words)}.",
            f"Give {' and '.join(('MODEL', 'FILE')[:num])}, then overrides such as "
            "serving.dtype=bfloat16.",
        )
    model = at_commit(words[0])
    serving = recipe.serving.model_copy(update={"model_path": model, "revision": None})
    if is_direct:
        if "engine" not in serving.model_fields_set:
            fast = num == 1 and _has_fast_engine()
            serving = serving.model_copy(update={"engine": "vllm" if fast else "torch"})
        serving = suited(serving, model)
        if serving.template == "own":
            print(f"{words[0]}: prompts go into the model's own chat template.", file=sys.stderr)
    rows = recipe.batch_scoring.model_copy(update={"path": words[1]} if num == 2 else {})
    return recipe.model_copy(update={"serving": serving, "batch_scoring": rows})


def _has_fast_engine() -> bool:
    """vLLM and a GPU: on CPUs it takes most of a minute to start, the torch scorer seconds."""
    from codepmp_ray.versions import has_gpu

    return find_spec("vllm") is not None and has_gpu()


def _score_here(recipe: "Recipe", output: Path | None) -> dict[str, Any]:
    """Rewards of a file's rows as they come, on standard output or into `output`."""
    from codepmp_ray.scoring.in_process import score_file, write_rows

    if recipe.serving.engine != "torch":
        raise ConfigError(
            f"serving.engine={recipe.serving.engine} needs a recipe: without one the torch scorer "
            "works in this process.",
            "Leave it out, or add --config.",
        )
    counts: dict[str, Any] = {"num_rows": 0, "num_candidates": 0, "rejected_by_reason": {}}
    write_rows(score_file(recipe.serving, recipe.batch_scoring, counts), output, sys.stdout)
    num_rejected = sum(counts["rejected_by_reason"].values())
    print(
        f"{counts['num_candidates']} candidates of {counts['num_rows'] - num_rejected} of "
        f"{counts['num_rows']} rows scored{f': {output}' if output else ''}",
        file=sys.stderr,
    )
    for reason, count in counts["rejected_by_reason"].items():
        print(f"  rejected: {count} {reason}", file=sys.stderr)
    return counts


def describe(service: "ServiceHandle") -> str:
    """Address, key and a line to paste."""
    request = {
        "model": service.model_name,
        "prompt": "Write a function that adds two numbers.",
        "candidates": ["def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"],
    }
    is_shown = service.key_was_made and SUBMITTED_VARIABLE not in os.environ
    key = service.api_key if is_shown else "$CODEPMP_API_KEY"
    curl = (
        f'curl -s {service.url}/v1/bon -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"
    )
    shown = f"\nAPI key (made for this run): {service.api_key}" if is_shown else ""
    return f"Serving {service.model_name} at {service.url} (Ctrl-C stops it).{shown}\n\n{curl}\n"
