"""What the stages of a recipe ask of a cluster: questions for its nodes, and needs against offers.

`questions_of` are asked on nodes by `check`; `plan_of` says in one line what a stage will hold, or
raises what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from codepmp_ray.cluster.deep_findings import TrainingSize
from codepmp_ray.cluster.gpu_kinds import least_gpu
from codepmp_ray.cluster.node_probe import NodeReport, Question, answers_in_time, require_model
from codepmp_ray.cluster.placement import Need
from codepmp_ray.cluster.preflight import cluster_offers, engine_needs, require_needs
from codepmp_ray.cluster.workers import training_need
from codepmp_ray.config.base import LabelSelector
from codepmp_ray.config.corpus import SourceConfig
from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.config.synthesis import EXECUTED
from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.corpus.sources import check_corpus_config, list_source
from codepmp_ray.errors import CodePMPError, InputError, ResourceError
from codepmp_ray.evaluation.given_candidates import are_given
from codepmp_ray.evaluation.problems import split_problems
from codepmp_ray.evaluation.sandbox import Sandbox
from codepmp_ray.evaluation.tasks.registry import problem_task
from codepmp_ray.io.listing import require_first_file
from codepmp_ray.runs import base_model
from codepmp_ray.storage.uris import written_name
from codepmp_ray.synthesis.plan import plan_pools
from codepmp_ray.training.trackers import require_trackers

TRAINING = ("pretraining", "finetuning")
_LOOK_TIMEOUT_S = 45.0
_LATE_HUB = (
    "The hub is slow or out of reach from there: look at HF_ENDPOINT and proxies, or put the model "
    "into a folder that all nodes share and name that."
)
_LATE_SOURCE = "Look at the mount, or at the store's endpoint, on these nodes."


def questions_of(recipe: Recipe, waiting: Sequence[str]) -> list[Question]:
    """What nodes have to read and do for the stages that wait."""
    names = dict(models_of(recipe, waiting))
    questions = [
        Question("model", name, "can read it", partial(require_model, name), late=_LATE_HUB)
        for name in names
    ]
    questions += [_file_question(*found) for found in dict.fromkeys(_files(recipe, waiting))]
    if "grades" in waiting and problem_task(recipe.candidates.task).grader == "code":
        where = recipe.evaluation.grader.label_selector
        questions.append(_sandbox_question("code of grades", recipe.evaluation.sandbox, where))
    if "synthesis" in waiting and recipe.synthesis.construction in EXECUTED:
        questions.append(_sandbox_question("code of synthesis", recipe.synthesis.sandbox, {}))
    if recipe.serving.execute:
        where = recipe.serving.label_selector
        questions.append(_sandbox_question("programs of requests", recipe.serving.sandbox, where))
    return questions


def own_questions(recipe: Recipe, waiting: Sequence[str]) -> list[Question]:
    """What only the job itself reads: training sets, which its workers get from run_dir, and sets
    of the hub."""
    questions = []
    source = recipe.corpus.source
    if "corpus" in waiting and source.kind == "huggingface":
        subject = f"corpus.source.path={source.path}"
        ask = partial(_require_listing, source)
        questions.append(Question("source", subject, "can list it", ask, late=_LATE_HUB))
    for stage in (name for name in TRAINING if name in waiting):
        for key in ("data", "eval_data"):
            for data in getattr(getattr(recipe, stage), key):
                subject = f"{stage}.{key} {data.label!r}"
                ask = partial(_require_set, subject, data)
                questions.append(Question("source", subject, "can read it", ask, late=_LATE_HUB))
    return questions


def plan_of(recipe: Recipe, name: str, reports: Sequence[NodeReport]) -> str:
    """One line about stage `name`; raises a CodePMPError when it cannot run.

    `reports` say which GPUs the running nodes have.
    """
    if name == "corpus":
        check_corpus_config(recipe.corpus_in_use)
        load_evaluation_index(recipe.corpus_in_use.decontamination)
        return f"source {recipe.corpus.source.kind}, evaluation sets can be read"
    if name in TRAINING:
        return _plan_training(recipe, name, reports)
    if name == "synthesis":
        pools = plan_pools(recipe.synthesis, recipe.engines)
        if not pools:
            return f"{recipe.synthesis.construction} asks no model, no engine is needed"
        needs = engine_needs([(pool.name, pool.engine) for pool in pools])
    elif name == "candidates":
        split_problems(recipe.candidates)
        if are_given(recipe.candidates):
            return "answers are given, no engine is needed"
        needs = engine_needs([("generator", recipe.generator)])
    else:
        return "needs what the stages before it leave"
    require_needs(needs)
    return "; ".join(need.describe() for need in needs)


def _plan_training(recipe: Recipe, name: str, reports: Sequence[NodeReport]) -> str:
    config: TrainingConfig = getattr(recipe, name)
    require_trackers(config.report_to)
    workers = training_need(name, config)
    require_needs([workers.need])
    text = workers.describe()
    if "GPU" not in workers.need.resources:
        return text
    gpu = least_gpu(cluster_offers(), config.label_selector, reports)
    if gpu is None:
        return f"{text}; the kind of its GPUs is not known, so that its memory is not planned"
    found = _memory(config, _base_of(recipe, config), workers.need.count)
    told = f"a step holds {found.total / 1e9:,.1f} GB of the {gpu.describe()}"
    if found.total <= gpu.num_bytes:
        return f"{text}; {told}"
    raise ResourceError(
        f"{name} on {workers.need.count} GPUs does not fit: {told}.",
        f"codepmp train plan --stage {name} --gpu KIND names settings that fit: more workers, "
        "gradient_checkpointing, cpu_offload, or larger GPUs.",
    )


def plan_serving(recipe: Recipe, needs: list[Need], reports: Sequence[NodeReport]) -> str:
    """`plan_of` for the service, whose replicas are `needs`, the first model's first."""
    config, num_gpus = recipe.serving, needs[0].resources.get("GPU", 0.0)
    require_needs(needs)
    text = "; ".join(need.describe() for need in needs)
    gpu = least_gpu(cluster_offers(), config.label_selector, reports) if num_gpus else None
    if gpu is None or config.model_path:
        return text
    model = _base_of(recipe, recipe.finetuning)
    try:
        num_parameters = _memory(recipe.finetuning, model, 1).num_parameters
    except CodePMPError as error:  # what is served may be there without what it was made of
        return f"{text}; its memory is not planned: {error.problem}"
    num_bytes = num_parameters * (4 if config.dtype == "float32" else 2)
    room = num_gpus * gpu.num_bytes - config.kv_cache_gb * 1e9
    told = f"weights of {num_bytes / 1e9:,.1f} GB on {num_gpus:g} x {gpu.describe()}"
    if num_bytes <= room:
        return f"{text}; {told}"
    raise ResourceError(
        f"A replica does not fit: {told}, with serving.kv_cache_gb={config.kv_cache_gb:g}.",
        "Raise serving.num_gpus, set serving.dtype=bfloat16, or let serving.label_selector name "
        "nodes with larger GPUs.",
    )


def _memory(config: TrainingConfig, model: str, num_workers: int) -> Any:
    """The plan of a step of the model. Raises ModelError, and ResourceError where its configuration
    cannot be had in time."""
    from codepmp_ray.modeling.loading import load_config
    from codepmp_ray.training.family import require_family
    from codepmp_ray.training.memory_plan import plan_memory

    shape = _in_time(partial(load_config, model), f"the configuration of {model}")
    path = require_family(config, shape)
    changes = {"num_workers": num_workers, "min_workers": None}
    if num_workers % config.data_parallel_replicate_degree:
        changes["data_parallel_replicate_degree"] = 1
    return plan_memory(config.model_copy(update=changes), shape, is_packed=path.is_packed)


def training_size(recipe: Recipe, name: str) -> TrainingSize:
    """What stage `name` moves, by the memory planner. Raises as `_memory`."""
    config: TrainingConfig = getattr(recipe, name)
    plain = config.model_copy(update={"cpu_offload": False})
    found = _memory(plain, _base_of(recipe, config), 1)  # one worker holds all
    return TrainingSize(
        name,
        4.0 * found.num_parameters,
        float(found.by_kind["parameters"] + found.by_kind["optimizer"]),
        config.stop_timeout_s,
    )


def _in_time(action: Any, what: str) -> Any:
    def attempt() -> tuple[Any, Exception | None]:
        try:
            return action(), None
        except Exception as error:  # noqa: BLE001 - raised again below
            return None, error

    found = answers_in_time({what: attempt}, _LOOK_TIMEOUT_S)
    if what not in found:
        raise ResourceError(f"{what} did not come within {_LOOK_TIMEOUT_S:g} s.", _LATE_HUB)
    result, error = found[what]
    if error is not None:
        raise error
    return result


def _base_of(recipe: Recipe, config: TrainingConfig) -> str:
    own = config.model_name_or_path and written_name(config.model_name_or_path, config.revision)
    return own or base_model(recipe)


def models_of(recipe: Recipe, waiting: Sequence[str]) -> Iterator[tuple[str, LabelSelector]]:
    """Models that the waiting stages start from, each with the nodes that load it."""
    engines = []
    if "synthesis" in waiting:
        engines += [pool.engine for pool in plan_pools(recipe.synthesis, recipe.engines)]
    if "candidates" in waiting and not are_given(recipe.candidates):
        engines.append(recipe.generator)
    yield from ((e.written_name, e.label_selector) for e in engines if e.kind == "vllm")
    if "pretraining" in waiting:
        yield base_model(recipe), recipe.pretraining.label_selector
    own = recipe.finetuning
    if "finetuning" in waiting and own.model_name_or_path:
        yield written_name(own.model_name_or_path, own.revision), own.label_selector
    served = recipe.serving
    if served.model_path:
        yield written_name(served.model_path, served.revision), served.label_selector


def _files(recipe: Recipe, waiting: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(setting, location) of what tasks on any node read."""
    corpus = recipe.corpus_in_use
    if "corpus" in waiting:
        source = corpus.source
        if source.kind not in ("stdlib", "huggingface"):
            yield "corpus.source.path", source.path or ""
        if corpus.filters.opt_out_path:
            yield "corpus.filters.opt_out_path", corpus.filters.opt_out_path
    if {"corpus", "synthesis"} & {*waiting} and corpus.decontamination.enabled:
        for found in corpus.decontamination.sets:
            if found.path:
                yield f"corpus.decontamination.sets {found.name!r}", found.path
    if "synthesis" in waiting and recipe.synthesis.construction == "web_pairs":
        yield "synthesis.threads.path", recipe.synthesis.threads.path or ""
    if "synthesis" in waiting and recipe.synthesis.construction == "commits":
        yield "corpus.source.path", corpus.source.path or ""
    if {"candidates", "grades"} & {*waiting}:
        for key in ("task_path", "pool_path"):
            if location := getattr(recipe.candidates, key):
                yield f"candidates.{key}", location


def _file_question(setting: str, location: str) -> Question:
    ask = partial(require_first_file, setting, location)
    return Question("source", f"{setting}={location}", "can read it", ask, late=_LATE_SOURCE)


def _sandbox_question(subject: str, limits: SandboxConfig, where: LabelSelector) -> Question:
    ask, late = partial(Sandbox.detect, limits), "Look at the load there."
    return Question("sandbox", subject, "can execute it in isolation", ask, dict(where), late)


def _require_listing(source: SourceConfig) -> None:
    list_source(source)


def _require_set(setting: str, data: DataSourceConfig) -> None:
    if data.path:
        require_first_file(setting, data.path)
        return
    from huggingface_hub import dataset_info

    try:
        dataset_info(data.hub_set or "", revision=data.revision, timeout=10)
    except Exception as error:  # as many kinds as for models
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{setting}: the hub set {data.hub_set} cannot be had "
            f"({type(error).__name__}: {first[:160]}).",
            "Check hub_id and the network, or download the set and give its path.",
        ) from error
