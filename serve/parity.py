"""Rewards of the running service for `codepmp eval parity`: of its engine by ids, over HTTP by
text.
"""

from __future__ import annotations

from ray import serve

from codepmp_ray.client import RewardClient
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import EngineError, ParityError
from codepmp_ray.evaluation.parity import Question, Rewards

from .launch import ServiceHandle, running_service
from .replicas import SCORER_NAME

_TIMEOUT_S = 600.0


def service_rewards(recipe: Recipe, model: str, questions: list[Question]) -> dict[str, Rewards]:
    """Start the service of `recipe.serving` and ask it twice. One model answers both."""
    with running_service(recipe, model, with_tls=False, is_measuring=True) as service:
        return ask_service(service, recipe.serving.engine, questions)


def ask_service(
    service: ServiceHandle, engine: str, questions: list[Question]
) -> dict[str, Rewards]:
    """Rewards by `engine`, which is handed the ids, and by "HTTP".

    Raises ParityError where the service made other ids of a text.
    """
    scorer = serve.get_deployment_handle(SCORER_NAME, service.app_name)
    by_ids: Rewards = []
    for question in questions:
        call = scorer.score_ids.remote(
            prompt_ids=question.prompt_ids, responses=question.response_ids
        )
        rewards = call.result(timeout_s=_TIMEOUT_S)
        if None in rewards:
            raise EngineError(f"{engine} left responses without a score.")
        by_ids.append(rewards)
    with RewardClient(service.url, service.api_key) as client:
        over_http = [_ask(client, question) for question in questions]
    return {engine: by_ids, "HTTP": over_http}


def _ask(client: RewardClient, question: Question) -> list[float]:
    choice = client.choose(question.prompt, question.candidates)
    found = [item.num_tokens for item in choice.scores]
    expected = [len(ids) for ids in question.response_ids]
    if found != expected:
        raise ParityError(
            f"The service made {found} tokens of responses that have {expected}.",
            "Tokenizer and template in the model's folder must be those of the training.",
        )
    return choice.rewards
