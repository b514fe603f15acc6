"""Credentials in URLs, taken out of what is recorded, printed and sent to others.

    https://user:PASS@host/x?X-Amz-Signature=ab  ->  https://***@host/x?X-Amz-Signature=***

Every place that keeps or shows settings, commands or errors calls this: manifests, reports,
trackers, error lines, the list of submissions. Fingerprints and requests have the URL itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
# What Azure's addresses have there is the container.
_USERINFO = re.compile(
    rf"(?!(?:abfss?|wasbs?)://)(?<![A-Za-z0-9+.-])({_SCHEME})[^\s/?#\"<>]+@", re.I
)
_URL = re.compile(rf"{_SCHEME}[^\s\"'<>`]+")
_PARAMETER = re.compile(
    r"([?&;#](?:[\w.-]*[-_.])?(?:token|secret|password|passwd|pwd|signature|credential|key|apikey"
    r"|accesskey|awsaccesskeyid|sig)=)[^&;#]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` with userinfo, signatures, keys and tokens of its URLs replaced by `***`."""
    if "://" not in text:
        return text
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    return _URL.sub(lambda url: _PARAMETER.sub(rf"\1{HIDDEN}", url[0]), text)


def redacted_values(value: Any) -> Any:
    """JSON values with every text `redacted`, names of entries included."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {redacted_values(name): redacted_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(item) for item in value]
    return value


def with_credentials(values: Any, name: str = "") -> Iterator[str]:
    """Dotted names of the entries of JSON `values` whose text `redacted` changes."""
    if isinstance(values, Mapping):
        for key, item in values.items():
            yield from with_credentials(item, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for index, item in enumerate(values):
            yield from with_credentials(item, f"{name}.{index}")
    elif isinstance(values, str) and redacted(values) != values:
        yield name
