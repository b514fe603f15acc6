"""A client of the recipe's reward model: of its endpoint, or of a service for the time of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codepmp_ray.client import RewardClient
    from codepmp_ray.config.recipe import Recipe


def model_of(recipe: Recipe) -> str:
    """Address, folder or URI of the model that is scored with.

    Raises InputError when it is the finetuned one and that is not finished.
    """
    from codepmp_ray.runs import reward_model

    return recipe.evaluation.endpoint or reward_model(recipe)


@contextmanager
def reward_client(recipe: Recipe, model: str) -> Iterator[RewardClient]:
    """A client of `model_of(recipe)`; a service that it needs is stopped at the end."""
    from codepmp_ray import client
    from codepmp_ray.client.answers import Hints

    config = recipe.evaluation
    hints = Hints("evaluation.endpoint", config.api_key_env)
    if config.endpoint is not None:
        key = os.environ.get(config.api_key_env, "")
        with client.RewardClient(config.endpoint, key, hints) as made:
            yield made
        return
    from codepmp_ray.command.extras import require_engine

    require_engine("serving.engine", recipe.serving.engine)
    from codepmp_ray.serve.launch import running_service

    with (
        running_service(recipe, model, with_tls=False, is_measuring=True) as service,
        client.RewardClient(service.url, service.api_key, hints) as made,
    ):
        yield made
