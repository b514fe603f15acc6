"""`codepmp cluster`: can it run there, send it there, what runs there."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codepmp_ray.command.registry import SUBMITTED_VARIABLE, command
from codepmp_ray.errors import CodePMPError, ConfigError, ResourceError

if TYPE_CHECKING:
    from codepmp_ray.cluster.check import Finding
    from codepmp_ray.config.recipe import Recipe

_ROOT = Path(__file__).resolve().parents[2]
_Address = Annotated[
    str | None, Option(help="Jobs API (default: RAY_API_SERVER_ADDRESS or this machine).")
]


@command(
    "cluster check",
    job="check",
    needs="Nothing; on a cluster every node is asked.",
    writes="Nothing: it prints what would fail and what to do, and ends with exit code 4 then.",
    examples=(
        "cluster check --config laptop --deep",
        "cluster check -c qwen2-1.5b-math run_dir=s3://runs/first @deploy/placement.args",
    ),
)
def check(
    recipe: "Recipe",
    deep: Annotated[
        bool, Option("--deep", help="Measure storage, all-reduce and models too.")
    ] = False,
    limit_s: Annotated[
        float, Option(metavar="SECONDS", min=1, help="With --deep: for how long at most.")
    ] = 600.0,
) -> dict[str, Any]:
    """Look before a job starts: nodes, versions, storage, models, and whether each stage can run.

    On a laptop it takes seconds. With --deep, where nothing fails, it says what that costs and
    then measures, while nothing else should run: what all nodes together write and read in run_dir,
    an all-reduce between the trainers, and how long each model takes to come and to be read.
    """
    from dataclasses import asdict

    from codepmp_ray.cluster.check import feasible, look, stop_finding
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.stage_checks import (
        own_questions,
        plan_of,
        plan_serving,
        questions_of,
    )
    from codepmp_ray.runs import STAGE_JOBS
    from codepmp_ray.serve.replicas import serving_needs

    with connect():
        waiting = [name for name in STAGE_JOBS if not _is_complete(recipe, name)]
        found = look(recipe.run_dir, questions_of(recipe, waiting), own_questions(recipe, waiting))
        findings = list(found.findings)
        findings += [
            feasible(name, partial(plan_of, recipe, name, found.reports)) for name in waiting
        ]
        replicas = serving_needs(recipe.serving)
        findings.append(feasible("serving", partial(plan_serving, recipe, replicas, found.reports)))
        if SUBMITTED_VARIABLE in os.environ:
            longest_s = max(recipe.pretraining.stop_timeout_s, recipe.finetuning.stop_timeout_s)
            findings.append(stop_finding(longest_s))
        for finding in findings:
            _show(finding)
        failed = [finding for finding in findings if finding.state == "FAIL"]
        if deep and not failed:
            from codepmp_ray.cluster.deep_check import deep_findings

            for finding in deep_findings(recipe, waiting, limit_s):
                _show(finding)
                findings.append(finding)
    if failed:
        raise ResourceError(
            f"{len(failed)} of {len(findings)} checks failed{', nothing was measured' * deep}.",
            "What to do is said above.",
        )
    num_unknown = sum(finding.state == "unknown" for finding in findings)
    unknown = f", {num_unknown} unknown: nobody answered" if num_unknown else ""
    print(f"{len(findings)} checks, nothing failed{unknown}.")
    return {"findings": [asdict(finding) for finding in findings]}


@command(
    "cluster submit",
    settings="",
    takes_rest=True,
    words="COMMAND",
    job="submit",
    needs="A running cluster (`ray up`, KubeRay) and, from a checkout, what this folder holds.",
    writes="Nothing of its own.",
    examples=(
        "cluster submit run -c qwen2-1.5b-math run_dir=s3://runs/first @deploy/placement.args",
        "cluster submit --rayjob pairs make run_dir=/mnt/codepmp/runs/first",
    ),
)
def submit(
    words: list[str],
    address: _Address = None,
    id: Annotated[
        str | None, Option(help="Submission id of your own, instead of one made of settings.")
    ] = None,
    env: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Variable of this environment that the job gets; repeatable."),
    ] = None,
    no_upload: Annotated[
        bool, Option("--no-upload", help="The nodes have the code: upload nothing.")
    ] = False,
    detach: Annotated[bool, Option("--detach", help="Do not wait for the end.")] = False,
    stop: Annotated[bool, Option("--stop", help="Ctrl-C stops the job too.")] = False,
    rayjob: Annotated[
        bool, Option("--rayjob", help="Print a RayJob for kubectl apply -f -, and end.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only say what would be submitted, under which id.")
    ] = False,
) -> dict[str, Any]:
    """Submit a command, or a job by its name, to a running cluster and follow it: same log, same
    exit code.

    The recipe travels with the job; every place in it has to be one that all nodes know. Submitting
    the same work with the same settings again follows what is there; what failed, and what the run
    directory does not hold, is started again and resumes. Ctrl-C stops following, and the job runs
    on; with --stop it is stopped too. This folder is uploaded without what .rayignore names.
    """
    from codepmp_ray.command.submitting import resolve

    asked = resolve(words)  # refuses before anything is contacted
    from codepmp_ray.cluster.jobs_api import connect_client
    from codepmp_ray.cluster.submit import (
        Submission,
        follow,
        passed_on,
        print_log,
    )
    from codepmp_ray.cluster.submit import submit as submit_job
    from codepmp_ray.versions import git_commit

    env_vars = {**passed_on(env or []), **asked.env_vars}
    uploads = not (no_upload or rayjob) and _is_checkout()
    if uploads and (commit := git_commit()):
        env_vars["CODEPMP_COMMIT"] = commit  # what is uploaded has no .git
    spec = asked.spec
    # The image has the checkout too; jobs/ is in no wheel.
    has_jobs = _is_checkout() or rayjob
    program = ("python", "-m", f"jobs.{spec.job}") if has_jobs else ("codepmp", *spec.path.split())
    submission = Submission(
        spec.job,
        asked.arguments,
        asked.identity,
        _ROOT if uploads else None,
        env_vars,
        program,
        asked.code,
        asked.line,
        asked.is_done,
    )
    if dry_run:
        print(f"{submission.base_id}: {asked.line}")
        return {"id": submission.base_id, "entrypoint": submission.entrypoint, "uploads": uploads}
    if rayjob:
        from codepmp_ray.cluster.ray_job import rayjob_manifest

        manifest = rayjob_manifest(submission, _kuberay("job.yaml"), id, _images())
        print(manifest, end="")
        return {"manifest": manifest}
    client = connect_client(address)
    submission_id, is_new = submit_job(client, submission, id)
    print(f"{'Submitted' if is_new else 'Following'} {submission_id}", file=sys.stderr, flush=True)
    if detach:
        return {"id": submission_id, "is_new": is_new}
    try:
        outcome = follow(client, submission_id, print_log)
    except KeyboardInterrupt:
        if stop:
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
    return {"id": submission_id, "status": outcome.status, "exit_code": outcome.exit_code}


@command(
    "cluster status",
    settings="",
    needs="A running cluster.",
    writes="Nothing: it prints the submissions of this project that the cluster knows.",
    examples=("cluster status", "cluster status --address http://127.0.0.1:8265 --json"),
)
def status(address: _Address = None) -> dict[str, Any]:
    """Show what was submitted to a cluster, newest first; `codepmp status` is about a run."""
    import time

    from codepmp_ray.cluster.jobs_api import connect_client
    from codepmp_ray.cluster.submit import submissions

    found = submissions(connect_client(address))
    for name, facts in found.items():
        started = facts["started_s"]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if started else "-" * 16
        print(f"{facts['status']:<9}  {when}  {name}\n{'':<11}{facts['command']}")
    if not found:
        print("Nothing of this project was submitted to that cluster.")
    return found


def _is_checkout() -> bool:
    return (_ROOT / "jobs" / "__init__.py").is_file()


def _images() -> dict[str, str]:
    """Name in the manifests -> image by digest. Raises ConfigError while nobody has set them."""
    import yaml

    name = "images/kustomization.yaml"
    images = yaml.safe_load(_kuberay(name))["images"]
    found = {image["name"]: f"{image['newName']}@{image['digest']}" for image in images}
    if any("REPLACE" in image for image in found.values()):
        raise ConfigError(
            f"deploy/kuberay/{name} names no images yet.",
            "Write your registry's names and the digests that `docker push` printed.",
        )
    return found


def _kuberay(name: str) -> str:
    file = _ROOT / "deploy/kuberay" / name
    if not file.is_file():
        raise ConfigError(f"{file} does not exist.", "--rayjob works in a checkout.")
    return file.read_text(encoding="utf-8")


def _show(finding: "Finding") -> None:
    print(f"{finding.state:<7} {finding.subject:<15} {finding.detail}")
    if finding.remedy and finding.state != "ok":
        print(f"{'':<23} -> {finding.remedy}")


def _is_complete(recipe: "Recipe", name: str) -> bool:
    from codepmp_ray.runs import open_stage

    try:
        return open_stage(recipe, name).is_complete
    except CodePMPError:  # storage says more about that
        return False
