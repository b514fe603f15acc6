"""Errors cross process borders and stay readable."""

from __future__ import annotations

import pickle

import pytest

from codepmp_ray import errors
from codepmp_ray.errors import CodePMPError


def _all_errors() -> list[type[CodePMPError]]:
    found, queue = [], [CodePMPError]
    while queue:
        kind = queue.pop()
        if kind.__module__ == errors.__name__:
            found.append(kind)
        queue += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__name__)


def test_every_public_class_of_the_module_is_covered() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    assert classes == set(_all_errors())


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_pickling_keeps_class_text_and_exit_code(kind: type[CodePMPError]) -> None:
    error = kind("port=9000 is in use.", "Choose another port.")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert (copy.problem, copy.remedy) == ("port=9000 is in use.", "Choose another port.")
        assert str(copy) == "port=9000 is in use. Choose another port."
        assert copy.exit_code == kind.exit_code


def test_a_missing_remedy_leaves_no_trailing_space() -> None:
    assert str(CodePMPError("The disk is full.")) == "The disk is full."


def test_exit_codes_tell_the_classes_apart_and_mean_failure() -> None:
    codes = [kind.exit_code for kind in _all_errors()]
    assert len(set(codes)) == len(codes)
    # 126 and above have meanings of their own in a shell.
    assert all(0 < code < 126 for code in codes)
