"""What leaves a corpus although it can be read: filters of one protocol.

Each filter has a `RejectReason` and settings in `config.corpus.FilterConfig`. Cheap ones go first.
"""

from __future__ import annotations

from codepmp_ray.config.corpus import FilterConfig
from codepmp_ray.corpus.filters.code_text import CodeText, Filter
from codepmp_ray.corpus.filters.origin import (
    AlphabetFilter,
    CommentFilter,
    GeneratedFilter,
    HelperFilter,
    MinifiedFilter,
    VendoredFilter,
)
from codepmp_ray.corpus.filters.personal_data import PersonalDataFilter
from codepmp_ray.corpus.filters.secrets import SecretsFilter
from codepmp_ray.reject_reasons import RejectReason

__all__ = ["FILE_FILTERS", "SNIPPET_FILTERS", "CodeText", "Filter", "refusal"]

# Before parsing, which costs more than all of them.
FILE_FILTERS: tuple[Filter, ...] = (
    VendoredFilter(),
    GeneratedFilter(),
    MinifiedFilter(),
    AlphabetFilter(),
)
SNIPPET_FILTERS: tuple[Filter, ...] = (
    HelperFilter(),
    CommentFilter(),
    SecretsFilter(),
    PersonalDataFilter(),
)


def refusal(
    filters: tuple[Filter, ...], code: CodeText, settings: FilterConfig
) -> tuple[RejectReason, str] | None:
    """(reason, detail) of the first filter that refuses `code`; None if all let it pass."""
    for check in filters:
        if detail := check(code, settings):
            return check.reason, detail
    return None
