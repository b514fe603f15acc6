"""What a training stage will hold in the memory of each GPU, and what to change if it is too much.

Nothing is trained and no GPU is needed: the step runs on tensors without contents. The number of
GPUs is that of the stage's num_workers.
"""

from __future__ import annotations

import argparse

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ResourceError
from codepmp_ray.runs import base_model
from codepmp_ray.storage.uris import written_name
from jobs._cli import run_job

STAGES = ("pretraining", "finetuning")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", choices=STAGES, default="pretraining")
    parser.add_argument("--gpu", default="h100-80gb", help="kind of GPU (default: %(default)s)")


def body(recipe: Recipe, arguments: argparse.Namespace) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    from codepmp_ray.modeling.loading import load_config
    from codepmp_ray.modeling.paths import choose_path
    from codepmp_ray.training.memory_plan import plan_memory, readable, remedies
    from codepmp_ray.training.step import objective_of

    config = getattr(recipe, arguments.stage)
    own = config.model_name_or_path and written_name(config.model_name_or_path, config.revision)
    model = own or base_model(recipe)
    shape = load_config(model)
    path = choose_path(shape, objective_of(config), torch.device("cpu"))
    if line := path.line(arguments.stage, shape.model_type):
        print(line)
    plan = plan_memory(config, shape, arguments.gpu, is_packed=path.is_packed)
    title = (
        f"{arguments.stage} of {model} ({plan.num_parameters / 1e9:,.2f} B parameters) on "
        f"{config.num_workers} x {arguments.gpu}, at the peak of a step"
    )
    table = Table("per GPU", "memory", title=title, title_justify="left")
    for kind, num_bytes in plan.by_kind.items():
        table.add_row(kind.replace("_", " "), readable(num_bytes))
    table.add_row("together, with headroom", readable(plan.total), style="bold")
    Console().print(table)
    if plan.logits:
        print(f"While the LM loss runs, logits of a chunk: {readable(plan.logits)} of it.")
    if plan.on_host:
        print(f"In host memory (cpu_offload): {readable(plan.on_host)} for each worker.")
    if plan.fits:
        print(f"It fits: the GPU has {readable(plan.capacity or 0)}.")
        return
    found = remedies(config, shape, arguments.gpu, is_packed=path.is_packed)
    choices = "; ".join(f"{change} ({readable(other.total)})" for change, other in found)
    raise ResourceError(
        f"It does not fit: {readable(plan.total)} on a GPU of {readable(plan.capacity or 0)}.",
        f"These would: {choices}." if found else "Use larger GPUs or many more of them.",
    )


if __name__ == "__main__":
    run_job(__doc__, body, add_arguments)
