"""Keys and tokens, by the detectors of detect-secrets that know a format, and by prefixes that came
after them.

Its entropy and keyword detectors are not used: on code, nearly all that they find is no secret.
Templates, placeholders and examples are none: `https://{user}:{password}@{host}`, AKIA...EXAMPLE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

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
# Issuers -> literals in lower case of which each token has one, and what tokens look like, as their
# documentation and gitleaks have them.
_PREFIXED = {
    "GitHub fine-grained token": (("github_pat_",), r"github_pat_\w{22,}"),
    "Anthropic key": (("sk-ant-",), r"sk-ant-[\w-]{24,}"),
    "OpenAI key": (("sk-",), r"sk-(?:proj|svcacct|admin|None|or-v1)-[\w-]{24,}"),
    "Hugging Face token": (("hf_", "api_org_"), r"(?:hf|api_org)_[A-Za-z0-9]{34,}"),
    "Google API key": (("aiza",), r"AIza[\w-]{35}"),
    "Google OAuth secret": (("gocspx-",), r"GOCSPX-[\w-]{28}"),
    "Google OAuth token": (("ya29.",), r"ya29\.[\w-]{30,}"),
    "npm token": (("npm_",), r"npm_[A-Za-z0-9]{36}"),
    "DigitalOcean token": (("_v1_",), r"do[opr]_v1_[0-9a-f]{64}"),
    "Databricks token": (("dapi",), r"dapi[0-9a-f]{32}"),
    "Shopify token": (
        ("shpat_", "shpca_", "shppa_", "shpss_"),
        r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    ),
    "Stripe key": (("rk_live_", "whsec_"), r"(?:rk_live|whsec)_[A-Za-z0-9]{24,}"),
    "Slack app token": (("xapp-",), r"xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{30,}"),
    "Atlassian token": (("atatt3",), r"ATATT3[\w=-]{60,}"),
    "Docker token": (("dckr_",), r"dckr_(?:pat|oat)_[\w-]{27,}"),
    "Vault token": (("hvs.", "hvb."), r"hv[sb]\.[\w-]{60,}"),
    "Grafana token": (("glsa_", "glc_"), r"gl(?:sa|c)_[\w-]{32,}"),
    "Linear key": (("lin_api_",), r"lin_api_[A-Za-z0-9]{40}"),
    "Notion token": (("ntn_", "secret_"), r"(?:ntn|secret)_[A-Za-z0-9]{43,}"),
    "Replicate token": (("r8_",), r"r8_[A-Za-z0-9]{37}"),
    "Groq key": (("gsk_",), r"gsk_[A-Za-z0-9]{48,}"),
    "NVIDIA key": (("nvapi-",), r"nvapi-[\w-]{60,}"),
    "Tailscale key": (("tskey-",), r"tskey-[a-z]+-[\w-]{20,}"),
    "Postman key": (("pmak-",), r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    "Mailgun key": (("key-",), r"key-[0-9a-f]{32}"),
    "Perplexity key": (("pplx-",), r"pplx-[A-Za-z0-9]{40,}"),
    "xAI key": (("xai-",), r"xai-[A-Za-z0-9]{60,}"),
    "Tavily key": (("tvly-",), r"tvly-[\w-]{28,}"),
    "Square token": (("sq0atp-", "eaaa"), r"sq0atp-[\w-]{22,}|EAAA[\w-]{60}"),
    "Discord webhook": (
        ("api/webhooks/",),
        r"https://discord(?:app)?\.com/api/webhooks/\d+/[\w-]{60,}",
    ),
    "Sentry token": (("sntrys_", "sntryu_"), r"sntry[su]_[\w+/=-]{60,}"),
    "Supabase token": (("sbp_",), r"sbp_[0-9a-f]{40}"),
    "RubyGems key": (("rubygems_",), r"rubygems_[0-9a-f]{48}"),
    "Figma token": (("figd_",), r"figd_[\w-]{36,}"),
    "1Password token": (("ops_eyj",), r"ops_eyJ[\w+/=-]{200,}"),
    "Clojars token": (("clojars_",), r"CLOJARS_[0-9a-f]{60}"),
    "EasyPost key": (("ezak",), r"EZAK[A-Za-z0-9]{54}"),
    "Pulumi token": (("pul-",), r"pul-[0-9a-f]{40}"),
    "Alibaba Cloud key": (("ltai",), r"LTAI[A-Za-z0-9]{20}(?![\w-])"),
    "Tencent Cloud key": (("akid",), r"AKID[A-Za-z0-9]{32}(?![\w-])"),
    "Doppler token": (("dp.pt.", "dp.st."), r"dp\.(?:pt|st\.[\w-]+)\.[A-Za-z0-9]{40,}"),
    "Fly.io token": (("fo1_", "fm2_"), r"fo1_[\w-]{43}|fm2_[\w+/=-]{80,}"),
    "HubSpot token": (("pat-",), r"pat-(?:na|eu)\d-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "age key": (("age-secret-key-1",), r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
}
_PREFIXED_RUN = 24  # of [A-Za-z0-9_-], in each of them
# What documentation and templates put in a secret's place.
_PLACEHOLDER = re.compile(
    r"example|sample|placeholder|dummy|your[-_ ]?|changeme|redacted|x{5}|[*<>{}$%]|\.\.\."
    r"|(\w)\1{29}|1234567890|abcdefghijklmnopqrst",
    re.IGNORECASE,
)
_NO_PASSWORD = re.compile(
    r"(?:user(?:name)?|pass(?:word|wd)?|pwd|pw|secret|token|key|api[-_]?key|test|foo|bar|\W*)",
    re.IGNORECASE,
)
_NO_HOST = re.compile(
    r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]|[\w.-]*example\.\w+|host)\b", re.I
)
_LOGIN = re.compile(r"://([^\s:/@]*):([^\s@]*)@(.*)")
_KEY_MATERIAL = re.compile(r"[A-Za-z0-9+/=]{32}")
_LONG_RUN = re.compile(f"[A-Za-z0-9_-]{{{min(_RUNS.values())}}}")
_TO_SPACE = {i: " " for i in range(128) if not (chr(i).isalnum() or chr(i) in "_-")}
Gate = tuple[str, tuple[str, ...], frozenset[str], int, tuple[re.Pattern[str], ...]]


def find_secret(text: str) -> str | None:
    """Name of the first kind of secret in `text`, in a fixed order; None if there is none."""
    longest_run = 0
    if _LONG_RUN.search(text):
        longest_run = max(map(len, text.translate(_TO_SPACE).split()), default=0)
    lower = text.lower()
    # This runs for every snippet: each literal is looked for once, for all detectors.
    detectors, all_literals = _detectors_within(longest_run)
    here = [literal for literal in all_literals if literal in lower]
    for name, cased, literals, _, patterns in detectors:
        if literals and literals.isdisjoint(here):
            continue
        if cased and not any(part in text for part in cased):
            continue
        for pattern in patterns:
            for match in pattern.finditer(text):
                if not _is_example(match[0], text[match.end() :]):
                    return name
    return None


def _is_example(found: str, behind: str) -> bool:
    """Whether what a detector found stands for a secret; `behind` is the text that follows."""
    if "PRIVATE KEY" in found:  # the line before a key says nothing without it
        return not _KEY_MATERIAL.search(behind[:400])
    line = behind.partition("\n")[0]
    if login := _LOGIN.search(found + line):
        user, password, host = login.groups()
        is_word = _NO_PASSWORD.fullmatch(password) or password.lower() == user.lower()
        return bool(is_word or _PLACEHOLDER.search(password) or _NO_HOST.match(host))
    return _PLACEHOLDER.search(found) is not None


class SecretsFilter:
    """Credentials. The detail names the kind, never the secret."""

    reason = RejectReason.SECRET

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        kind = find_secret(code.text) if settings.secrets else None
        return f"looks like: {kind}" if kind else None


@cache
def _detectors() -> tuple[Gate, ...]:
    found: list[Gate] = [
        (name, (), frozenset(literals), _PREFIXED_RUN, (re.compile(rf"(?<![\w-])(?:{token})"),))
        for name, (literals, token) in _PREFIXED.items()
    ]
    for name, detector in sorted(get_mapping_from_secret_type_to_class().items()):
        if issubclass(detector, RegexBasedDetector) and name not in _NOT_CREDENTIALS:
            patterns: Iterable[re.Pattern[str]] = detector().denylist
            literals = _CASED_LITERALS.get(name, ()), frozenset(_LITERALS.get(name, ()))
            found.append((name, *literals, _RUNS.get(name, 0), tuple(patterns)))
    # redis://:password@host: the detector of logins asks for a user.
    found.append(
        ("Password in a URL", (), frozenset({"://:"}), 0, (re.compile(r"://:[^\s/@:]+@"),))
    )
    return tuple(found)


@lru_cache(maxsize=256)
def _detectors_within(longest_run: int) -> tuple[tuple[Gate, ...], tuple[str, ...]]:
    """Those that can match where no run is longer, and all their literals."""
    found = tuple(gate for gate in _detectors() if gate[3] <= longest_run)
    return found, tuple(sorted({literal for gate in found for literal in gate[2]}))
