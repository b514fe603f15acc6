"""Client of the scoring service: `RewardClient`, and `AsyncRewardClient` for event loops.

with RewardClient("http://127.0.0.1:9000") as rewards:
    text, choice = rewards.best_of_n(prompt, generate, n=64)
"""

from codepmp_ray.client.answers import CandidateScore, Choice, RequestRefused, ServedModel
from codepmp_ray.client.attempts import Stages
from codepmp_ray.client.clients import AsyncRewardClient, RewardClient
from codepmp_ray.client.stopping import Stop

__all__ = [
    "AsyncRewardClient",
    "CandidateScore",
    "Choice",
    "RequestRefused",
    "RewardClient",
    "ServedModel",
    "Stages",
    "Stop",
]
