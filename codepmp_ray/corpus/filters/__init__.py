"""What leaves a corpus although it can be read: one short file per filter, one protocol.

Each filter has a `RejectReason` and settings in `config.corpus.FilterConfig`. Cheap ones go first.
"""

from __future__ import annotations

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.alphabet import AlphabetFilter
from codepmp_ray.corpus.filters.code_text import CodeText, Filter
from codepmp_ray.corpus.filters.comments import CommentFilter
from codepmp_ray.corpus.filters.generated import GeneratedFilter
from codepmp_ray.corpus.filters.minified import MinifiedFilter
from codepmp_ray.corpus.filters.secrets import SecretsFilter
from codepmp_ray.corpus.filters.vendored import VendoredFilter
from codepmp_ray.reject_reasons import RejectReason

__all__ = ["FILE_FILTERS", "SNIPPET_FILTERS", "CodeText", "Filter", "refusal"]

# Before parsing, which costs more than all of them.
FILE_FILTERS: tuple[Filter, ...] = (
    VendoredFilter(),
    GeneratedFilter(),
    MinifiedFilter(),
    AlphabetFilter(),
)
SNIPPET_FILTERS: tuple[Filter, ...] = (CommentFilter(), SecretsFilter())


def refusal(
    filters: tuple[Filter, ...], code: CodeText, settings: FilterConfig
) -> tuple[RejectReason, str] | None:
    """(reason, detail) of the first filter that refuses `code`; None if all let it pass."""
    for check in filters:
        if detail := check(code, settings):
            return check.reason, detail
    return None
