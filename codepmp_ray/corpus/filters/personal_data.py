"""E-mail addresses of people and public IP addresses: kept, refused or replaced, as one says.

What documentation uses (example.com, 192.0.2.0/24), local networks and logins (git@github.com) are
nobody's. Replacements are such: the code stays valid.
"""

from __future__ import annotations

import ipaddress
import re

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText
from codepmp_ray.reject_reasons import RejectReason

# Of known top levels only: `x@w.transpose` is a product of matrices.
_EMAIL = re.compile(
    r"(?<![\w.+-])(?!(?:git|hg|svn|root|noreply|no-reply)@)[\w.+-]{1,64}@(?!(?:[\w-]+\.)*example\.)"
    r"(?:[\w-]{1,63}\.){1,4}(?:com|org|net|edu|gov|mil|int|info|biz|io|dev|app|ai|(?!to\b)[a-z]{2})"
    r"(?![\w-]|\.\w|\s*[(\[])"
)
_IP = re.compile(
    r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4})(?![\w:]|\.\d)"
)


def redacted(text: str) -> str:
    """`text` with addresses that mean nobody in the place of those that mean somebody."""
    if "@" in text:
        text = _EMAIL.sub("name@example.com", text)
    return _IP.sub(lambda match: _nobody(match[0]) if _is_public(match[0]) else match[0], text)


class PersonalDataFilter:
    """Addresses. The detail names the kind, never the address."""

    reason = RejectReason.PERSONAL_DATA

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        if settings.personal_data != "reject":
            return None
        if _EMAIL.search(code.text):
            return "holds an e-mail address"
        is_found = any(_is_public(match[0]) for match in _IP.finditer(code.text))
        return "holds a public IP address" if is_found else None


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _nobody(address: str) -> str:
    return "2001:db8::1" if ":" in address else "192.0.2.1"
