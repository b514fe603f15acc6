"""The few routes of the Hugging Face hub that reading a data set or a model takes."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO, COMMIT = "me/code", "c" * 40
Files = dict[str, bytes]


@dataclass
class Repo:
    """Files by commit, and what branches and tags point to; both may change meanwhile."""

    commits: dict[str, Files]
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> str | None:
        found = self.refs.get(revision, revision)
        return found if found in self.commits else None


@contextmanager
def hub_server(
    files: Files, models: dict[str, Repo] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Address of a hub with the data set REPO and with `models`, and the requests so far."""
    requests: list[str] = []
    repos = {("datasets", REPO): Repo({COMMIT: files}, {"main": COMMIT})}
    repos |= {("models", name): repo for name, repo in (models or {}).items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
            for (kind, name), repo in repos.items():
                api = f"/api/{kind}/{name}"
                resolve = f"/{name}/resolve/" if kind == "models" else f"/{kind}/{name}/resolve/"
                if path.startswith(f"{api}/tree/"):
                    revision, _, folder = path.removeprefix(f"{api}/tree/").partition("/")
                    found = repo.commits.get(repo.commit(revision) or "", {})
                    whole = "recursive=true" in self.path.lower()
                    self._json(_entries(found, folder, whole))
                elif path == api or path.startswith(f"{api}/revision/"):
                    self._info(name, repo, path.removeprefix(f"{api}/revision/"))
                elif path.startswith(resolve):
                    self._resolve(repo, path.removeprefix(resolve))
                else:
                    continue
                return
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are kept, not printed."""

        def _info(self, name: str, repo: Repo, revision: str) -> None:
            commit = repo.commit("main" if revision.startswith("/") else revision)
            if commit is None:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                about = {"_id": "1", "id": name, "sha": commit, "private": False, "tags": []}
                self._json(about)

        def _resolve(self, repo: Repo, place: str) -> None:
            revision, _, file = place.partition("/")
            commit = repo.commit(revision)
            data = repo.commits[commit].get(file) if commit else None
            if commit is None or data is None:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            else:
                self._file(data, commit)

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, data: bytes, commit: str) -> None:
            etag = hashlib.sha1(data).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
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


def _entries(files: Files, folder: str, whole: bool) -> list[dict[str, Any]]:
    """What lies directly in `folder`, or all below it."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for name, data in files.items():
        if not name.startswith(prefix):
            continue
        head, is_folder, _ = name.removeprefix(prefix).partition("/")
        if whole:
            head, is_folder = name.removeprefix(prefix), ""
        kind, size = ("directory", 0) if is_folder else ("file", len(data))
        oid = hashlib.sha1(data).hexdigest()
        found[head] = {"type": kind, "oid": oid, "size": size, "path": prefix + head}
    return list(found.values())
