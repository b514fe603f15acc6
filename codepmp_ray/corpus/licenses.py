"""Which licences let a file in. A file whose licence is not known is refused, never assumed."""

from __future__ import annotations

from typing import Any


def parse_licenses(value: Any) -> tuple[str, ...]:
    """Licences in a data set's cell: a string, a list of strings (The Stack), or nothing."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(item.strip() for item in items if isinstance(item, str) and item.strip())


def license_refusal(licenses: tuple[str, ...], allowed: tuple[str, ...]) -> str | None:
    """Why a file under `licenses` may not be used, or None. All of several must be allowed."""
    if not licenses:
        return "the licence is not known"
    permitted = {name.lower() for name in allowed}
    refused = [name for name in licenses if name.lower() not in permitted]
    return f"{', '.join(refused)} not in corpus.allowed_licenses" if refused else None


def license_text(licenses: tuple[str, ...]) -> str | None:
    """The licences as one SPDX expression."""
    return " AND ".join(licenses) or None
