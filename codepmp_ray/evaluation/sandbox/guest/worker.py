"""The answer's side: loads its code and calls its function with the arguments that arrive."""

from __future__ import annotations

import os
import socket
import sys
from types import ModuleType
from typing import Any, NoReturn

from .rights import limit_resources, set_traceable
from .wire import decode, encode, read_frame, run_source, write_frame

_CHANNEL = 3
_MAX_MESSAGE_CHARS = 500


def run_worker(channel: socket.socket, output_fd: int, limits: dict[str, Any]) -> NoReturn:
    """Serve requests until killed. From the first one on, all of this is the answer's to change.

    Requests: {"program": source} loads; {"name", "args", "kwargs"} calls; {"program", "setup",
    "test", "name"} runs a test in the answer's own module. Replies: {"value"} or {"error": class
    name, "message"}.
    """
    fd = channel.detach()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.dup2(fd, _CHANNEL)
    os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    set_traceable(True)
    limit_resources(limits)
    module = ModuleType("answer")
    sys.modules["answer"] = module  # where dataclasses and pickle look
    while True:
        request = read_frame(_CHANNEL)
        try:
            reply = {"value": _answer(request, vars(module))}
        except BaseException as error:  # noqa: BLE001 - SystemExit as well must reach the test
            reply = {"error": type(error).__name__, "message": _message(error)}
        write_frame(_CHANNEL, reply)


def _answer(request: dict[str, Any], scope: dict[str, Any]) -> Any:
    if "program" in request:
        for part in ("setup", "program", "test"):
            run_source(request.get(part, ""), part, scope)
        if "test" in request:
            scope["check"](scope[request["name"]])
        return None
    args, kwargs = decode(request["args"]), decode(request["kwargs"])
    return encode(scope[request["name"]](*args, **kwargs))


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_MESSAGE_CHARS]
    except BaseException:  # noqa: BLE001 - __str__ may be the answer's own
        return ""
