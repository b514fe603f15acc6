"""What synthesis will cost, in words: from a pilot and the devices there are, or will be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codepmp_ray.analysis.text import duration
from codepmp_ray.cluster.pilot import run_pilot
from codepmp_ray.cluster.preflight import possible_resources
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ResourceError
from codepmp_ray.runs import open_stage
from codepmp_ray.synthesis.capacity import device_hours, split_devices


def plan_synthesis(recipe: Recipe, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure, and `tell` of rates, the recipe's own engines and the split that leaves no pool
    idle. Returns the figures.

    Raises ResourceError for GPUs of which there is none to measure on, and as `run_pilot`.
    """
    planning, have = recipe.planning, possible_resources()
    if planning.num_gpus and not have.get("GPU"):
        raise ResourceError(
            f"planning.num_gpus={planning.num_gpus}, but this cluster has no GPU to measure on: "
            "the pace of its CPUs says nothing about GPUs.",
            "Run the plan where there is one GPU, or leave planning.num_gpus out.",
        )
    pilot = run_pilot(recipe)
    unit = "GPU" if have.get("GPU") else "CPU"
    share = f"{pilot.yield_share:.0%}"
    tell(f"Measured on {pilot.num_rows} snippets, {share} of which no hop gave up:")
    for rate in pilot.rates:
        pace = f"{rate.tokens_per_s:,.0f} tokens/s and {rate.rows_per_s:,.2f} snippets/s"
        short = "" if rate.is_steady else " at least (too few snippets to fill it)"
        tell(f"  {rate.name}: {pace} per engine of {rate.devices:g} {unit}{short}")
    num_rows = planning.num_rows or open_stage(recipe, "corpus").summary()["num_snippets"]
    engines = ", ".join(f"{num} {name}" for name, num in pilot.num_engines.items())
    took = duration(pilot.start_s + num_rows / pilot.rows_per_s)
    tell(
        f"The recipe's engines here, {engines}: {pilot.rows_per_s:,.2f} snippets/s, {took} for "
        f"{num_rows:,} snippets ({duration(pilot.start_s)} of it to start)"
    )
    num_devices = planning.num_gpus or have.get("GPU") or have["CPU"]
    split = split_devices(pilot.rates, num_devices)
    engines = ", ".join(
        f"{num} {name} (busy {split.busy[name]:.0%})" for name, num in split.num_engines.items()
    )
    pace = f"together {split.rows_per_s:,.2f} snippets/s"
    tell(f"Split of {num_devices:g} {unit}, each to itself: {engines}, {pace}")
    hours, price = device_hours(split, num_rows), planning.price_per_gpu_hour
    cost = "" if price is None else f", price {hours * price:,.2f}"
    num_pairs, duration_s = round(num_rows * pilot.yield_share), num_rows / split.rows_per_s
    tell(
        f"{num_rows:,} snippets: {duration(duration_s)}, {hours:,.2f} {unit} hours{cost}, at most "
        f"{num_pairs:,} pairs"
    )
    return {
        "num_rows": num_rows,
        "num_pairs_at_most": num_pairs,
        "own_engines_duration_s": pilot.start_s + num_rows / pilot.rows_per_s,
        "duration_s": duration_s,
        "device": unit,
        "device_hours": hours,
        "price": None if price is None else hours * price,
        "num_engines": dict(split.num_engines),
    }
