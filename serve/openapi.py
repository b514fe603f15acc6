"""What FastAPI's own OpenAPI schema leaves out."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .gate import PUBLIC_PATHS


def describe_keys(app: FastAPI) -> None:
    """Complete the OpenAPI schema: where the key goes, so that clients made from it can send it."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        made = make()
        made["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        made["security"] = [{"bearer": []}, {"apiKey": []}]
        for path, operations in made["paths"].items():
            if path in PUBLIC_PATHS:
                operations["get"]["security"] = []
            content = operations.get("post", {}).get("requestBody", {}).get("content", {})
            for body in content.values():
                # A body that fits two of them is told by its fields; it is no error.
                if kinds := body["schema"].pop("oneOf", None):
                    body["schema"]["anyOf"] = kinds
        return made

    app.openapi = openapi  # type: ignore[method-assign]
