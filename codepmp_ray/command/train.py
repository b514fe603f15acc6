"""`codepmp train`: memory, the preference model, the reward model, branches, policies."""

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from codepmp_ray.command.registry import command
from codepmp_ray.errors import ResourceError

if TYPE_CHECKING:
    from codepmp_ray.config.recipe import Recipe
    from codepmp_ray.config.studies import StudiesConfig

GRPO = "seed004_grpo"
_MODEL = "model/ (transformers and safetensors), metrics.jsonl and checkpoints"


@command(
    "train plan",
    job="plan_training",
    needs="The configuration of the model; no GPU and no data.",
    writes="Nothing: it prints what each GPU will hold, and what to change if that is too much.",
    examples=(
        "train plan --config qwen2-7b-math",
        "train plan -c qwen2-7b-math --stage finetuning --gpu h100-80gb",
    ),
    sections=("pretraining",),
)
def plan(
    recipe: "Recipe",
    stage: Annotated[
        Literal["pretraining", "finetuning"], Option(help="Which training.")
    ] = "pretraining",
    gpu: Annotated[str, Option(help="Kind of GPU.")] = "h100-80gb",
) -> dict[str, Any]:
    """Say what a training stage will hold in the memory of each GPU.

    Nothing is trained and no GPU is needed: the step runs on tensors without contents. The number
    of GPUs is that of the stage's num_workers. Ends with exit code 4 when it does not fit.
    """
    from rich.console import Console
    from rich.table import Table

    from codepmp_ray.modeling.loading import load_config
    from codepmp_ray.runs import base_model
    from codepmp_ray.storage.uris import written_name
    from codepmp_ray.training.family import require_family
    from codepmp_ray.training.memory_plan import plan_memory, readable, remedies

    config = getattr(recipe, stage)
    own = config.model_name_or_path and written_name(config.model_name_or_path, config.revision)
    model = own or base_model(recipe)
    shape = load_config(model)
    path = require_family(config, shape)
    if line := path.line(stage, shape.model_type):
        print(line)
    found = plan_memory(config, shape, gpu, is_packed=path.is_packed)
    title = (
        f"{stage} of {model} ({found.num_parameters / 1e9:,.2f} B parameters) on "
        f"{config.num_workers} x {gpu}, at the peak of a step"
    )
    table = Table("per GPU", "memory", title=title, title_justify="left")
    for kind, num_bytes in found.by_kind.items():
        table.add_row(kind.replace("_", " "), readable(num_bytes))
    table.add_row("together, with headroom", readable(found.total), style="bold")
    Console().print(table)
    if found.logits:
        print(f"While the LM loss runs, logits of a chunk: {readable(found.logits)} of it.")
    if found.on_host:
        print(f"In host memory (cpu_offload): {readable(found.on_host)} for each worker.")
    if found.fits:
        print(f"It fits: the GPU has {readable(found.capacity or 0)}.")
        return {"bytes": found.total, "bytes_by_kind": dict(found.by_kind), "fits": True}
    others = remedies(config, shape, gpu, is_packed=path.is_packed)
    choices = "; ".join(f"{change} ({readable(other.total)})" for change, other in others)
    raise ResourceError(
        f"It does not fit: {readable(found.total)} on a GPU of {readable(found.capacity or 0)}.",
        f"These would: {choices}." if others else "Use larger GPUs or many more of them.",
    )


@command(
    "train pmp",
    job="pretrain",
    needs="Finished pairs (or pretraining.data), and the model that it begins with.",
    writes=f"pretraining-<fingerprint>/ in run_dir: {_MODEL}.",
    examples=(
        "train pmp --config laptop",
        "train pmp -c qwen2-1.5b-math pretraining.num_workers=8 pretraining.learning_rate=1e-6",
    ),
    sections=("pretraining",),
    makes=("pretraining",),
)
def pmp(recipe: "Recipe") -> dict[str, Any]:
    """Pretrain the preference model (PMP) on the synthesised pairs: L_RM + L_LM."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import pretrain

    with connect():
        summary = pretrain(recipe)
    print(outcome(recipe, "pretraining", summary))
    return summary


@command(
    "train rm",
    job="finetune",
    needs="A pretrained model and graded answers; or finetuning.model_name_or_path and "
    "finetuning.data.",
    writes=f"finetuning-<fingerprint>/ in run_dir: {_MODEL}.",
    examples=(
        "train rm --config laptop",
        "train rm -c laptop finetuning.data='[{path: pairs.jsonl}]'",
    ),
    sections=("finetuning",),
    makes=("finetuning",),
)
def rm(recipe: "Recipe") -> dict[str, Any]:
    """Finetune the reward model on passing against failing answers, or on sets of pairs: L_RM."""
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import finetune

    with connect():
        summary = finetune(recipe)
    print(outcome(recipe, "finetuning", summary))
    return summary


@command(
    "train branch",
    job="branch",
    needs="Finished pairs; with branches.evaluate also graded answers.",
    writes="A pretraining, finetuning and evaluation folder for each branch, and report.html.",
    examples=(
        "train branch --config qwen2-1.5b-math branches.num_branches=8",
        "train branch -c laptop branches.factor=2 branches.evaluate=false",
    ),
    sections=("branches",),
)
def branch(recipe: "Recipe") -> None:
    """Make the scaling curve of Figure 5 from one pretraining: branch, decay, finetune, evaluate.

    The pretraining keeps checkpoints at geometric steps of its stable phase; each is decayed,
    finetuned and evaluated as a run of its own. Finished parts are not done again.
    """
    from codepmp_ray.analysis.report import write_report
    from codepmp_ray.analysis.scaling import print_scaling
    from codepmp_ray.cluster.branches import pretrain_branches, require_branchable
    from codepmp_ray.cluster.connect import connect
    from codepmp_ray.cluster.training import finetune
    from codepmp_ray.command import evaluation

    require_branchable(recipe)
    with connect():
        for own in pretrain_branches(recipe):
            if recipe.branches.finetune:
                finetune(own)
            if recipe.branches.evaluate:
                evaluation.bon(own)
    report = write_report(recipe)
    print_scaling(recipe)
    print(f"Report: {report}")


@command(
    "train grpo",
    job="grpo",
    settings="studies",
    needs="The extra `rl` (TRL), and the models and sets of the study seed004_grpo.",
    writes=f"policies/, results/{GRPO}.json and {GRPO}.html in the studies' run_dir.",
    examples=(
        "train grpo --config laptop",
        "train grpo -c seed004-opt350m studies.seed004_grpo.num_steps=100",
    ),
    sections=("studies", "scoring"),
)
def grpo(config: "StudiesConfig") -> dict[str, Any]:
    """Train a policy by TRL's GRPO with the best-of-N service as its reward, then measure it.

    The judge is CodePMP's reward model of the study seed004_grpo, whose options say the rest. The
    service runs while the job runs.
    """
    from codepmp_ray.cluster.laboratory import connected
    from codepmp_ray.cluster.study_run import run_study
    from codepmp_ray.studies.bench import Bench
    from codepmp_ray.studies.catalogue import STUDIES
    from codepmp_ray.studies.report import print_study, write_reports

    bench = Bench(config)
    with connected(bench):
        record = run_study(STUDIES[GRPO], bench, alone=True, prepare=train_policy)
    print_study(record)
    print(f"Report: {write_reports(bench, [record], GRPO)}")
    return record


def train_policy(bench: Any) -> None:
    """Train the judge and, against it, the policy, if they are not there yet."""
    from codepmp_ray.client import RewardClient
    from codepmp_ray.client.rewards import trl_reward_function
    from codepmp_ray.cluster.laboratory import Laboratory
    from codepmp_ray.config.evaluation import ServingConfig
    from codepmp_ray.config.recipe import Recipe
    from codepmp_ray.serve.launch import running_service
    from codepmp_ray.studies.catalogue import grpo as study
    from codepmp_ray.studies.catalogue.grpo import require_trl, train_grpo
    from codepmp_ray.studies.catalogue.policies import base_weights
    from codepmp_ray.studies.study import Context

    require_trl()
    context = Context(GRPO, bench, bench.config.options(GRPO))
    folder = bench.run_dir / study.folder_name(context)
    if folder.exists():
        return
    (arm,) = study.arms(context)
    judge = Laboratory(bench).train(arm.by_seed[0])
    folder.parent.mkdir(parents=True, exist_ok=True)
    scoring = bench.config.scoring
    serving = ServingConfig(engine=scoring.engine, max_model_len=scoring.max_model_len)
    recipe = Recipe(name=GRPO, run_dir=str(bench.run_dir), serving=serving)
    with (
        running_service(recipe, judge.folder) as service,
        RewardClient(service.url, service.api_key) as client,
    ):
        train_grpo(
            base_weights(context),
            study.training_prompts(context),
            trl_reward_function(client),
            folder,
            study.settings_of(context),
        )


def outcome(recipe: "Recipe", stage: str, summary: dict[str, Any]) -> str:
    """One line from the summary of a training stage: what was trained, how well, where it is."""
    from codepmp_ray.runs import MODEL_FOLDER, open_stage

    objective = getattr(recipe, stage).objective
    model = open_stage(recipe, stage).store.locate(MODEL_FOLDER)
    return f"{objective}: {_result(summary)}; model in {model}"


def _result(summary: dict[str, Any]) -> str:
    text = f"{summary['num_steps']} steps on {summary['num_pairs']} pairs{_too_long(summary)}"
    if summary.get("stopping_step") is not None:
        text += f", stopped early after step {summary['stopping_step']}"
    if summary["best_step"] is not None:
        text += f", exported step {summary['best_step']}"
    if summary["num_skipped_steps"]:
        text += f", {summary['num_skipped_steps']} steps skipped (gradient not finite)"
    if not all(map(_is_finite, (summary["final_loss"], summary["eval_loss"]))):
        text += ", the last loss is not finite"
    found = "".join(
        f"; {_evaluated(summary, key.removesuffix('num_pairs'))}"
        for key in summary
        if re.fullmatch("eval_num_pairs|eval/[^/]+/num_pairs", key) and summary[key]
    )
    return f"{text}{found or '; no pairs were held out'}"


def _evaluated(summary: dict[str, Any], prefix: str) -> str:
    """What was measured on held-out pairs (prefix `eval_`) or on a set (`eval/NAME/`)."""
    pairs = "held-out pairs" if prefix == "eval_" else f"pairs of {prefix.split('/')[1]}"
    on = f"on {summary[f'{prefix}num_pairs']} {pairs}"
    if summary.get(f"{prefix}accuracy") is None:
        return f"loss {on} {summary[f'{prefix}loss']:.3f}"
    before, after = summary[f"{prefix}accuracy_before"], summary[f"{prefix}accuracy"]
    return f"accuracy {on} {before:.2f} -> {after:.2f}"


def _is_finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def _too_long(summary: dict[str, Any]) -> str:
    """What exceeded max_length, by source; empty if nothing did."""
    parts = []
    for name, counts in summary["sources"].items():
        found = [
            f"{count} {done}"
            for key, done in (("num_over_max_length", "rejected"), ("num_truncated", "cut"))
            if (count := counts.get(key))
        ]
        if found:
            parts.append(f"{name} {' and '.join(found)}")
    return f" (over max_length: {', '.join(parts)})" if parts else ""
