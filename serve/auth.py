"""API keys. The service holds their sha256 digests only, so a dump of it reveals no key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from codepmp_ray.errors import ConfigError

logger = logging.getLogger("ray.serve")
_LOOK_EVERY_S = 1.0  # at the key file
_DIGEST_LENGTH = 64
_SHORTEST_KEY = 16  # random characters have 96 bits then; fewer are guessed, or are words
_NAME_LENGTH = 8  # of a digest: enough to tell callers apart in logs, too little to be a secret


def digest_of(key: str | bytes) -> str:
    """sha256 of a key, 64 hex digits: what goes into serve/config.yaml."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def generate_key() -> str:
    return secrets.token_urlsafe(32)


def key_from_environment(environment: Mapping[str, str], name: str) -> str | None:
    """The key in variable `name`, None where it is unset or empty.

    Raises ConfigError for a key that no HTTP header can carry, and for one that can be guessed.
    """
    key = environment.get(name) or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"${name} holds spaces, control or non-ASCII characters.",
            "Use letters, digits and punctuation, or unset it to have a key made.",
        )
    if key is not None and len(key) < _SHORTEST_KEY:
        raise ConfigError(
            f"${name} has {len(key)} characters, and a key has at least {_SHORTEST_KEY}.",
            "python -m codepmp_ray.serve.make_key makes one; or unset it to have one made.",
        )
    return key


class KeyRing:
    """Checks presented keys against digests, in constant time.

    Args:
        file: more digests, one a line (what follows a space or # names the key). It is read again
            when it changes, so keys come and go without a restart. What cannot be used then is
            logged, and the keys stay as they were. A thread reads: a share that hangs must not
            hold up the service.
    """

    def __init__(self, digests: Iterable[str], file: str | Path | None = None) -> None:
        self._given = tuple(digest.lower() for digest in digests)
        self._file = None if file is None else Path(file)
        self._seen: tuple[int, int] | None = None
        self._next_look_s = 0.0
        self._looking: threading.Thread | None = None
        _require_digests(self._given, "api_key_sha256")
        self._digests = self._given
        self._names: dict[str, str] = {}
        if self._file is not None:
            try:
                self._read(self._file)
            except OSError as error:
                raise ConfigError(
                    f"The key file {self._file} cannot be read: {error.strerror}.",
                    "Write one sha256 digest a line: python -m codepmp_ray.serve.make_key.",
                ) from error
        if not self._digests:
            raise ConfigError(
                "The service has no API key.",
                "Set CODEPMP_API_KEY, api_key_sha256 or api_keys_file; it does not start without "
                "one.",
            )

    def _read(self, file: Path) -> None:
        """Raises ConfigError for a line that is no digest, OSError for a file that is not there."""
        facts = file.stat()
        if (seen := (facts.st_mtime_ns, facts.st_size)) == self._seen:
            return
        self._seen = seen
        lines = file.read_text("utf-8").splitlines()
        words = (line.replace("#", " # ", 1).split() for line in lines)
        keys = [(first.lower(), " ".join(more)) for first, *more in filter(None, words)]
        keys = [(digest, name.lstrip("# ")) for digest, name in keys if digest != "#"]
        digests = tuple(digest for digest, _ in keys)
        _require_digests(digests, str(file))
        self._digests = self._given + digests
        self._names = {digest[:_NAME_LENGTH]: name for digest, name in keys if name}

    def name_of(self, caller: str) -> str:
        """What the file calls the key of `caller`; by itself the beginning of its digest."""
        return self._names.get(caller, caller)

    def _look_again(self) -> None:
        now_s = time.monotonic()
        if self._file is None or now_s < self._next_look_s:
            return
        if self._looking is not None and self._looking.is_alive():
            return
        self._next_look_s = now_s + _LOOK_EVERY_S
        self._looking = threading.Thread(target=self._look, args=[self._file], daemon=True)
        self._looking.start()

    def _look(self, file: Path) -> None:
        try:
            self._read(file)
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            logger.error("The key file cannot be used, the keys stay as they were: %s", error)

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """A name for whoever holds the key in `Authorization: Bearer` or `x-api-key`.

        None without a known key. `headers` are those of an ASGI scope: names in lower case.
        """
        self._look_again()
        for key in _presented(headers):
            presented = digest_of(key)
            # Every digest is compared: the time says nothing about which one matched.
            if sum(hmac.compare_digest(presented, known) for known in self._digests):
                return presented[:_NAME_LENGTH]
        return None


def _require_digests(digests: Iterable[str], where: str) -> None:
    for digest in digests:
        if len(digest) != _DIGEST_LENGTH or not set(digest) <= set("0123456789abcdef"):
            raise ConfigError(
                f"An entry of {where} is not a sha256 digest.",
                "Write 64 hex digits: python -m codepmp_ray.serve.make_key, or printf %s KEY | "
                "sha256sum.",
            )


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    found = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(key.strip())
            elif scheme.lower() == b"basic":
                # Clients that take an address only (OpenRLHF) send the key of http://any:KEY@host.
                with suppress(ValueError):
                    found.append(base64.b64decode(key, validate=True).partition(b":")[2])
    return found
