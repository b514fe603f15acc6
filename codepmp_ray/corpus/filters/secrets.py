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
from codepmp_ray.reject_reasons import RejectReason

_NOT_CREDENTIALS = {"Public IP (ipv4)"}
# Most snippets hold no secret, so most of the time goes into patterns that cannot match. What a
# detector's every match contains is looked for first: one of these literals, ...
_CASED_LITERALS = {"Artifactory Credentials": ("AKC", "AP")}
# ... or of these, in whatever case, ...
_LITERALS = {
    "AWS Access Key": ("a3t", "abia", "acca", "akia", "asia", "aws"),
    "Azure Storage Account access key": ("accountkey=",),
    "Basic Auth Credentials": ("://",),
    "GitHub Token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    "JSON Web Token": ("eyj",),
    "Mailchimp Access Key": ("-us",),
    "NPM tokens": (":_authtoken=",),
    "OpenAI Token": ("t3blbkfj",),
    "Private Key": ("private key", "putty-user-key-file-2"),
    "PyPI Token": ("pypi-",),
    "SendGrid API Key": ("sg.",),
    "Slack Token": ("xox", "hooks.slack.com"),
    "Square OAuth Secret": ("sq0csp-",),
    "Stripe Access Key": ("k_live_",),
    "Twilio API Key": ("ac", "sk"),
}
# ... and a run of so many characters of [A-Za-z0-9_-] that a value is made of.
_RUNS = {
    "Cloudant Credentials": 24,
    "Discord Bot Token": 23,
    "GitHub Token": 40,
    "GitLab Token": 20,
    "IBM Cloud IAM Key": 44,
    "IBM COS HMAC Credentials": 48,
    "Mailchimp Access Key": 36,
    "OpenAI Token": 48,
    "PyPI Token": 70,
    "SendGrid API Key": 43,
    "SoftLayer Credentials": 64,
    "Stripe Access Key": 32,
    "Telegram Bot Token": 35,
    "Twilio API Key": 34,
}
_TO_SPACE = {i: " " for i in range(128) if not (chr(i).isalnum() or chr(i) in "_-")}
Gate = tuple[str, tuple[str, ...], tuple[str, ...], int, tuple[re.Pattern[str], ...]]


def find_secret(text: str) -> str | None:
    """Name of the first kind of secret in `text`, in a fixed order; None if there is none."""
    longest_run = max(map(len, text.translate(_TO_SPACE).split()), default=0)
    lower = text.lower()
    for name, cased, literals, run, patterns in _detectors():
        if longest_run < run or (cased and not any(part in text for part in cased)):
            continue
        for part in literals:  # loops, because this runs for every snippet
            if part in lower:
                break
        else:
            if literals:
                continue
        for pattern in patterns:
            if pattern.search(text):
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
            literals = _CASED_LITERALS.get(name, ()), _LITERALS.get(name, ())
            found.append((name, *literals, _RUNS.get(name, 0), tuple(patterns)))
    return tuple(found)
