"""What a model may answer to a problem: always a row that can be stored."""

import asyncio

import pytest

from codepmp_ray.cluster.sampling import CandidateSampler, candidates_table
from codepmp_ray.config.engines import SamplingConfig
from codepmp_ray.errors import EngineError
from codepmp_ray.records import CANDIDATE
from codepmp_ray.synthesis.engine import Completion, ContextOverflow

ROW = dict.fromkeys(CANDIDATE.names, "x") | {"sample_index": 0}


class Engine:
    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer

    async def generate(self, user_message: str, sampling: SamplingConfig) -> Completion:
        if isinstance(self.answer, Exception):
            raise self.answer
        return Completion(self.answer, "stop", 3)


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (" x = 1\n", "x = 1"),
        ("half \ud800", "half \N{REPLACEMENT CHARACTER}"),
        ("\0", "\0"),
        (EngineError("no"), ""),
        (ContextOverflow("no room"), ""),
    ],
)
def test_any_answer_is_stored(answer: str | Exception, stored: str) -> None:
    row = asyncio.run(CandidateSampler(SamplingConfig())(dict(ROW), Engine(answer)))
    (table,) = candidates_table([row]).values()
    table.validate(full=True)
    (found,) = table.to_pylist()
    failed = isinstance(answer, Exception)
    assert (found["completion"], found["finish_reason"]) == (stored, "error" if failed else "stop")
