"""The listener of a service that a job starts: its ingress answers itself, on a socket that the job
holds.

Serve's proxy costs more than all the rest of a small request, and a job's service has one
application and one ingress, which need none. The job opens the socket and gives whichever process
is the ingress a copy of it: callers who come while that one is started again wait for the next.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from codepmp_ray.errors import ResourceError

from .connection import GuardedProtocol

_BACKLOG = 4_096  # connections that wait for the ingress; the kernel may have a lower limit
_KEEP_ALIVE_S = 90  # of an idle connection, as in Serve's proxy
_LAST_BYTES_S = 5  # for callers to take their answers, before a stop cuts them off


@dataclass(frozen=True)
class Listener:
    """Where the ingress gets its socket. `node_id` is of the machine that it has to be on.

    `tls` are uvicorn's options.
    """

    path: str
    node_id: str
    tls: dict[str, str] = field(default_factory=dict)


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens on `port`, on any free one for 0. Raises ResourceError where it cannot.

    Serve opens its sockets with SO_REUSEPORT; without it here, no two services share a port.
    """
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # As servers do: connections of a service that has ended do not count.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise ResourceError(
            f"serving.port={port} on {host} cannot be opened ({error.strerror}).",
            "Choose another one (serving.port=...), or 0 for any free port.",
        ) from error
    return opened


@contextmanager
def given_to_ingresses(listening: socket.socket) -> Iterator[str]:
    """For the time of the block: the path at which `received` gets a copy of `listening`.

    The socket there is in a folder that no other user can enter.
    """
    with tempfile.TemporaryDirectory(prefix="codepmp-") as folder:
        path = str(Path(folder) / "listener")
        giver = socket.socket(socket.AF_UNIX)
        try:
            giver.bind(path)
            giver.listen()
        except OSError as error:
            raise ResourceError(
                f"A socket at {path} cannot be opened ({error}).",
                "Point TMPDIR to a folder with a short name on a local disk.",
            ) from error

        def give() -> None:
            while True:
                try:
                    asking, _ = giver.accept()
                except OSError:  # the block has ended
                    return
                with asking, suppress(OSError):  # whoever asked has gone; the next may ask
                    socket.send_fds(asking, [b"\0"], [listening.fileno()])

        giving = threading.Thread(target=give, daemon=True, name="listener")
        giving.start()
        try:
            yield path
        finally:
            giver.shutdown(socket.SHUT_RDWR)  # wakes the thread
            giving.join()
            giver.close()


def received(path: str) -> socket.socket:
    """A copy of the socket that another process holds."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        _, found, _, _ = socket.recv_fds(asking, 1, 1)
    return socket.socket(fileno=found[0])


class HttpServer(uvicorn.Server):
    """uvicorn in an event loop that has other work too."""

    def __init__(self, app: ASGIApp, tls: dict[str, str] | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_BYTES_S,
            proxy_headers=False,
            # It would log what an exception says, texts included. `observation` logs requests.
            log_config=None,
            log_level="critical",
            access_log=False,
            ssl_certfile=(tls or {}).get("ssl_certfile"),
            ssl_keyfile=(tls or {}).get("ssl_keyfile"),
        )
        super().__init__(config)
        self._serving: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the process's own business."""
        yield

    def begin(self, listening: socket.socket) -> None:
        self._serving = asyncio.create_task(self.serve(sockets=[listening]))

    @property
    def has_ended(self) -> bool:
        return self._serving is not None and self._serving.done()

    async def end(self) -> None:
        """Take no more connections, and answer those who are inside."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving
