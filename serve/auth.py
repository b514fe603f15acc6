"""API keys. The service holds their sha256 digests only, so a dump of it reveals no key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

from codepmp_ray.errors import ConfigError

_DIGEST_LENGTH = 64
_NAME_LENGTH = 8  # of a digest: enough to tell callers apart in logs, too little to be a secret


def digest_of(key: str | bytes) -> str:
    """sha256 of a key, 64 hex digits: what goes into serve/config.yaml."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def generate_key() -> str:
    return secrets.token_urlsafe(32)


def key_from_environment(environment: Mapping[str, str], name: str) -> str | None:
    """The key in variable `name`, None where it is unset or empty.

    Raises ConfigError for a key that no HTTP header can carry.
    """
    key = environment.get(name) or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"${name} holds spaces, control or non-ASCII characters.",
            "Use letters, digits and punctuation, or unset it to have a key made.",
        )
    return key


class KeyRing:
    """Checks presented keys against digests, in constant time."""

    def __init__(self, digests: Iterable[str]) -> None:
        self._digests = tuple(digest.lower() for digest in digests)
        for digest in self._digests:
            if len(digest) != _DIGEST_LENGTH or not set(digest) <= set("0123456789abcdef"):
                raise ConfigError(
                    "An entry of api_key_sha256 is not a sha256 digest.",
                    "Write 64 hex digits: printf %s KEY | sha256sum.",
                )
        if not self._digests:
            raise ConfigError(
                "The service has no API key.",
                "Set CODEPMP_API_KEY or api_key_sha256; it does not start without one.",
            )

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """A name for whoever holds the key in `Authorization: Bearer` or `x-api-key`.

        None without a known key. `headers` are those of an ASGI scope: names in lower case.
        """
        for key in _presented(headers):
            presented = digest_of(key)
            # Every digest is compared: the time says nothing about which one matched.
            if sum(hmac.compare_digest(presented, known) for known in self._digests):
                return presented[:_NAME_LENGTH]
        return None


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    found = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(key.strip())
    return found
