"""Keys at rest and on the wire."""

from __future__ import annotations

import pytest

from codepmp_ray.errors import ConfigError
from codepmp_ray.serve.auth import KeyRing, digest_of, generate_key, key_from_environment


def test_digest_is_what_sha256sum_prints() -> None:
    assert digest_of("abc").startswith("ba7816bf8f01cfea") and len(digest_of("abc")) == 64


def test_ring_knows_its_keys_and_nothing_else() -> None:
    ring = KeyRing([digest_of("one"), digest_of("two").upper()])
    for key in ("one", "two"):
        assert ring.caller([(b"x-api-key", key.encode())])
    for key in ("", "three", digest_of("one")):
        assert not ring.caller([(b"x-api-key", key.encode())])
    assert not ring.caller([])
    assert not ring.caller([(b"authorization", b"one")])


@pytest.mark.parametrize("digests", [[], ["abc"], ["g" * 64]])
def test_ring_refuses_to_be_empty_or_to_hold_plain_keys(digests: list[str]) -> None:
    with pytest.raises(ConfigError):
        KeyRing(digests)


def test_made_keys_differ_and_fit_a_header() -> None:
    keys = {generate_key() for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) >= 43 and key.isascii() for key in keys)


def test_key_of_the_environment() -> None:
    assert key_from_environment({}, "K") is None
    assert key_from_environment({"K": ""}, "K") is None
    for good in ("0123456789abcdef", generate_key()):
        assert key_from_environment({"K": good}, "K") == good
    for bad in ("two words of length", "a line of length\n", "ключ" * 5):
        with pytest.raises(ConfigError, match=r"\$K holds"):
            key_from_environment({"K": bad}, "K")
    for short in ("k", "change-me", "0123456789abcde"):
        with pytest.raises(ConfigError, match=rf"\$K has {len(short)} char.*make_key"):
            key_from_environment({"K": short}, "K")
