"""Serve the finetuned model of the recipe (or serving.model_path) until Ctrl-C or SIGTERM.

POST /v1/bon scores candidates and names the best one; see the printed curl line. The API key is
$CODEPMP_API_KEY, or one that is made and printed.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
from typing import TYPE_CHECKING

from codepmp_ray.config.recipe import Recipe
from codepmp_ray.runs import reward_model
from jobs._cli import run_job

if TYPE_CHECKING:
    from codepmp_ray.serve.launch import ServiceHandle


def body(recipe: Recipe) -> None:
    model = reward_model(recipe)
    if recipe.serving.require_audit:
        from codepmp_ray.evaluation.audit.served import require_passed_audit

        require_passed_audit(recipe)  # the service asks too, but after a cluster was started
    from codepmp_ray.serve.launch import running_service

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


def describe(service: ServiceHandle) -> str:
    """Address, key and a line to paste."""
    request = {
        "model": service.model_name,
        "prompt": "Write a function that adds two numbers.",
        "candidates": ["def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"],
    }
    key = service.api_key if service.key_was_made else "$CODEPMP_API_KEY"
    curl = (
        f'curl -s {service.url}/v1/bon -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"
    )
    shown = f"\nAPI key (made for this run): {service.api_key}" if service.key_was_made else ""
    return f"Serving {service.model_name} at {service.url} (Ctrl-C stops it).{shown}\n\n{curl}\n"


if __name__ == "__main__":
    run_job(__doc__, body)
