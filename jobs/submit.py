"""Submit a job to a running cluster and follow it: same exit code, same log.

    python -m jobs.submit synthesize --config jobs/recipes/qwen2-1.5b-math.yaml run_dir=s3://runs/first

Submitting the same job with the same settings again follows the one that is there; one that failed
is started again and resumes. Ctrl-C stops following, and the job runs on; with --stop it is stopped
too. This folder is uploaded without what .rayignore names.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import ConfigError
from codepmp_ray.storage import is_uri
from jobs._cli import make_parser, run_command

_ROOT = Path(__file__).resolve().parents[1]
_NOT_SUBMITTED = {"submit"}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.submit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--address", help="jobs API (default: RAY_API_SERVER_ADDRESS or local)")
    parser.add_argument("--id", help="submission id of your own, instead of one made of settings")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="pass it on")
    parser.add_argument("--no-upload", action="store_true", help="the nodes have the code")
    parser.add_argument("--detach", action="store_true", help="do not wait for the end")
    parser.add_argument("--stop", action="store_true", help="Ctrl-C stops the job too")
    parser.add_argument(
        "--rayjob", action="store_true", help="print a RayJob for kubectl apply -f -, and end"
    )
    parser.add_argument("job", help="a job's name, see README.md")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the job's own command line")
    options = parser.parse_args()
    run_command(lambda: body(options))


def body(options: argparse.Namespace) -> None:
    identity = identity_of(options.job, options.arguments)  # refuses before anything is contacted
    from codepmp_ray.cluster.submit import (
        Submission,
        connect_client,
        follow,
        passed_on,
        print_log,
        rayjob_manifest,
    )
    from codepmp_ray.cluster.submit import submit as submit_job
    from codepmp_ray.versions import git_commit

    env_vars = passed_on(options.env)
    uploads = not (options.no_upload or options.rayjob)
    if uploads and (commit := git_commit()):
        env_vars["CODEPMP_COMMIT"] = commit  # what is uploaded has no .git
    submission = Submission(
        options.job, tuple(options.arguments), identity, _ROOT if uploads else None, env_vars
    )
    if options.rayjob:
        template = (_ROOT / "deploy/kuberay/job.yaml").read_text(encoding="utf-8")
        print(rayjob_manifest(submission, template, options.id), end="")
        return
    client = connect_client(options.address)
    submission_id, is_new = submit_job(client, submission, options.id)
    print(f"{'Submitted' if is_new else 'Following'} {submission_id}", file=sys.stderr, flush=True)
    if options.detach:
        return
    try:
        outcome = follow(client, submission_id, print_log)
    except KeyboardInterrupt:
        if options.stop:
            client.stop_job(submission_id)
            print(f"Stopping {submission_id}.", file=sys.stderr)
        else:
            print(
                f"{submission_id} runs on. The same command follows it again; "
                f"`ray job stop {submission_id}` stops it.",
                file=sys.stderr,
            )
        raise SystemExit(130) from None
    print(f"{submission_id}: {outcome.status}, exit code {outcome.exit_code}", file=sys.stderr)
    if outcome.exit_code:
        if outcome.status == "FAILED" and outcome.message:
            print(outcome.message.splitlines()[0], file=sys.stderr)
        raise SystemExit(outcome.exit_code)


def identity_of(job: str, arguments: list[str]) -> object:
    """The recipe as it will be read, and options of the job. Raises ConfigError for a bad one."""
    names = {file.stem for file in (_ROOT / "jobs").glob("[a-z]*.py")} - _NOT_SUBMITTED
    if job not in names:
        raise ConfigError(f"{job!r} is not a job.", f"Jobs: {', '.join(sorted(names))}.")
    module = importlib.import_module(f"jobs.{job}")
    own = getattr(module, "add_arguments", None)
    known = make_parser(module.__name__, module.__doc__, own).parse_args(arguments)
    if Path(known.config).is_absolute() and not Path(known.config).is_relative_to(_ROOT):
        raise ConfigError(
            f"--config {known.config} is outside {_ROOT}, which is what the cluster gets.",
            "Put the recipe into this checkout, or use overrides.",
        )
    recipe = load_recipe(known.config, known.overrides)
    if not is_uri(recipe.run_dir) and not Path(recipe.run_dir).is_absolute():
        raise ConfigError(
            f"run_dir={recipe.run_dir} is relative: on a cluster that is a temporary folder of one "
            "node.",
            "Name storage that all nodes share: run_dir=/mnt/... or s3://bucket/....",
        )
    options = {k: v for k, v in vars(known).items() if k not in ("config", "overrides")}
    return [recipe.model_dump(mode="json"), options]


if __name__ == "__main__":
    main()
