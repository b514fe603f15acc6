"""The sandbox under every mechanism whose tool is installed."""

import pytest

from codepmp_ray.evaluation.sandbox import Sandbox, canary, mechanisms
from tests.sandbox_machine import MECHANISMS
from tests.unit.evaluation.sandbox_support import (
    CONFIG,
)


@pytest.fixture(scope="module", params=MECHANISMS or ["none"])
def sandbox(request):
    if request.param == "none":
        pytest.skip("neither bubblewrap nor namespaces can be had on this machine")
    found, _ = mechanisms.available_mechanisms()
    made = Sandbox(CONFIG, next(item for item in found if item.name == request.param))
    assert canary.find_breach(made, CONFIG) is None
    return made
