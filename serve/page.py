"""The playground: one static page, public, whose calls need a key like any other."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.responses import HTMLResponse

_FILE = Path(__file__).parent / "static" / "index.html"


@cache
def playground() -> HTMLResponse:
    """The page, with a policy under which nothing but its own script and style runs or loads."""
    html = _FILE.read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            "connect-src 'self'",
            f"script-src {_digest(html, 'script')}",
            f"style-src {_digest(html, 'style')}",
            # Bars set their width as a property of an element, which is no inline style.
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(html, headers=headers)


def _digest(html: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    assert found is not None
    digest = hashlib.sha256(found.group(1).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
