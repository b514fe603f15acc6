"""Copies of other projects inside a repository: their code counts where it is at home."""

from __future__ import annotations

import re

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText
from codepmp_ray.reject_reasons import RejectReason

# After github-linguist's vendor.yml: folders, and libraries that are copied as single files.
_FOLDER = re.compile(
    r"(?:^|/)(_?vendor(?:ed|s)?|third[-_]?party|extern(?:al)?s?|node_modules|bower_components"
    r"|(?:site|dist)-packages|Godeps|Pods|Carthage|\.yarn|_?bundled|wp-(?:includes|admin))/",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"(?:^|/)(jquery[^/]*\.js|bootstrap[^/]*\.js|angular[^/]*\.js|react(?:-dom)?[-.][^/]*\.js"
    r"|modernizr[^/]*\.js|[^/]+\.min\.m?js|ez_setup\.py|versioneer\.py|sqlite3\.[ch])$",
    re.IGNORECASE,
)


class VendoredFilter:
    """Paths that lie in a folder for other people's code, or name a well-known library."""

    reason = RejectReason.VENDORED

    def __call__(self, code: CodeText, settings: FilterConfig) -> str | None:
        if not settings.vendored:
            return None
        match = _FOLDER.search(code.path) or _FILE.search(code.path)
        return f"its path has {match.group(1)}" if match else None
