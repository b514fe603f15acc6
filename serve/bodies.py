"""Bodies that say one thing: JSON in Unicode, each name once, and no field in the address.

Python's reader takes the last of two fields of one name, and bytes of another charset as UTF-8:
what is scored would not be what was sent. A field in the query string would be left out.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Coroutine
from email.message import Message
from functools import cache
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from .dialect_fields import all_names
from .errors import ApiError


class StrictRequest(Request):
    async def json(self) -> Any:
        """Raises HTTPException, which FastAPI lets through here, as the Gate's errors read."""
        body = await self.body()
        _require_unicode(self.headers.get("content-type", ""), body)
        return json.loads(body, object_pairs_hook=_once)


class StrictRoute(APIRoute):
    """Of an application whose requests are StrictRequests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if named := sorted(request.query_params.keys() & all_names()):
                message = f"{named[0]} is in the query string, where nothing is read: send it in "
                raise ApiError(422, f"{message}the body.", param=named[0])
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise HTTPException(422, f"{twice} is there twice: send each field once.")
    return made


def _require_unicode(content_type: str, body: bytes) -> None:
    """Nothing that is plain ASCII is refused: it is the same text in whatever its sender names."""
    charset = _charset(content_type)
    if charset is not None and not body.isascii() and not charset.startswith("utf-"):
        raise HTTPException(415, f"The charset is {charset}: send UTF-8.")


@cache
def _charset(content_type: str) -> str | None:
    message = Message()
    message["content-type"] = content_type
    name = message.get_content_charset()
    try:
        return name and codecs.lookup(name).name
    except LookupError:
        return name
