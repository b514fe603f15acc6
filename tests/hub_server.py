"""The few routes of the Hugging Face hub that reading a data set takes, over files in memory."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO, COMMIT = "me/code", "c" * 40


@contextmanager
def hub_server(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Address of a hub with the data set REPO, and the requests that it got so far."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            path = urllib.parse.unquote(parts.path)
            requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
            api, resolve = f"/api/datasets/{REPO}", f"/datasets/{REPO}/resolve/{COMMIT}/"
            if path.startswith(f"{api}/tree/"):
                folder = path.removeprefix(f"{api}/tree/").partition("/")[2]
                self._json(_entries(files, folder))
            elif path == api or path.startswith(f"{api}/revision/"):
                self._json({"_id": "1", "id": REPO, "sha": COMMIT, "private": False, "tags": []})
            elif path.startswith(resolve) and path.removeprefix(resolve) in files:
                self._file(files[path.removeprefix(resolve)])
            else:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are kept, not printed."""

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, data: bytes) -> None:
            headers = {"ETag": '"1"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            wanted = self.headers.get("Range")
            if not wanted:
                self._send(200, data, headers)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)), len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self._send(206, data[start:stop], headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()


def _entries(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """What lies directly in `folder`."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for name, data in files.items():
        if not name.startswith(prefix):
            continue
        head, is_folder, _ = name.removeprefix(prefix).partition("/")
        kind, size = ("directory", 0) if is_folder else ("file", len(data))
        found[head] = {"type": kind, "oid": "1" * 40, "size": size, "path": prefix + head}
    return list(found.values())
