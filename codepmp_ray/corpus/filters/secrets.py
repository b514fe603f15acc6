"""Keys and tokens, by the detectors of detect-secrets that know a format.

Its entropy and keyword detectors are not used: on code, nearly all that they find is no secret.
Nor are IP addresses: they are no credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText
from codepmp_ray.records import RejectReason

_NOT_CREDENTIALS = {"Public IP (ipv4)"}
# Most snippets hold no secret, so most of the time goes into patterns that cannot match. What a
# detector's every match contains is looked for first: one of these literals, ...
_LITERALS = {
    "Artifactory Credentials": ("AKC", "AP"),
    "Mailchimp Access Key": ("-us",),
    "Slack Token": ("xox", "hooks.slack.com"),
    "Private Key": ("PRIVATE KEY", "PuTTY-User-Key-File-2"),
}
# ... or a run of so many characters of [A-Za-z0-9_-] that a value is made of.
_RUNS = {
    "Cloudant Credentials": 24,
    "IBM Cloud IAM Key": 44,
    "IBM COS HMAC Credentials": 48,
    "SoftLayer Credentials": 64,
    "Discord Bot Token": 23,
    "Telegram Bot Token": 35,
    "Twilio API Key": 34,
    "Stripe Access Key": 32,
}
_TO_SPACE = {i: " " for i in range(128) if not (chr(i).isalnum() or chr(i) in "_-")}
Gate = tuple[str, tuple[str, ...], int, tuple[re.Pattern[str], ...]]


def find_secret(text: str) -> str | None:
    """Name of the first kind of secret in `text`, in a fixed order; None if there is none."""
    longest_run = max(map(len, text.translate(_TO_SPACE).split()), default=0)
    for name, literals, run, patterns in _detectors():
        if longest_run < run or (literals and not any(part in text for part in literals)):
            continue
        if any(pattern.search(text) for pattern in patterns):
            return name
    return None


class SecretsFilter:
    """Credentials. The detail names the kind, never the secret."""

    reason = RejectReason.SECRET

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        kind = find_secret(code.text) if settings.secrets else None
        return f"looks like: {kind}" if kind else None


@cache
def _detectors() -> tuple[Gate, ...]:
    found: list[Gate] = []
    for name, detector in sorted(get_mapping_from_secret_type_to_class().items()):
        if issubclass(detector, RegexBasedDetector) and name not in _NOT_CREDENTIALS:
            patterns: Iterable[re.Pattern[str]] = detector().denylist
            found.append((name, _LITERALS.get(name, ()), _RUNS.get(name, 0), tuple(patterns)))
    return tuple(found)
