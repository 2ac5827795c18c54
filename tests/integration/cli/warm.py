"""A program, loaded once and forked for every call: a process of its own each time, without the start of Python.

Run as a program it is the process that is forked. What a call is (arguments, environment, folder) comes over the socket
that is its stdin, together with the three streams of the call; the status with which the call ended goes back.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Warm"]

_MEDFORGECTL = "cli.main:main"
# By commands, when they need it: here it is loaded for all of them.
_LOADED_WHEN_NEEDED = ("medforged.client", "rich.console", "rich.live", "rich.spinner", "rich.table")
_WAIT_SECONDS = 60.0
_LONGEST_CALL = 1 << 16


class Warm:
    """The test's end. Whoever wants to see the program load starts it for real."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        program: str = _MEDFORGECTL,
        loaded: Sequence[str] = _LOADED_WHEN_NEEDED,
    ) -> None:
        self._own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._own.settimeout(_WAIT_SECONDS)
        with other:
            self._process = subprocess.Popen(
                [*argv, "-m", "tests.integration.cli.warm", program, *loaded],
                env=dict(environment),
                stdin=other,
                stdout=subprocess.DEVNULL,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.close()
        self._process.wait(_WAIT_SECONDS)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with captured output and nothing to read."""
        # Files, not pipes: nobody has to read them while the program runs, and as little are they terminals.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open("rb") as nothing:
            call = json.dumps({"arguments": arguments, "environment": dict(environment), "folder": str(Path.cwd())})
            socket.send_fds(self._own, [call.encode()], [nothing.fileno(), out.fileno(), err.fileno()])
            status = int(self._own.recv(_LONGEST_CALL))
            shown = []
            for stream in (out, err):
                stream.seek(0)
                shown.append(stream.read().decode())
        return subprocess.CompletedProcess(list(arguments), os.waitstatus_to_exitcode(status), *shown)


def _serve(program: str, *loaded: str) -> None:
    for name in loaded:
        importlib.import_module(name)
    module, _, function = program.partition(":")
    main = getattr(importlib.import_module(module), function)

    # A collection would write to every object, and so make every call copy the whole program.
    gc.freeze()
    calls = socket.socket(fileno=os.dup(0))
    while True:
        text, streams, *_ = socket.recv_fds(calls, _LONGEST_CALL, 3)
        if not text:
            return
        child = os.fork()
        if child == 0:
            calls.close()
            _become(json.loads(text), streams)
            main()
        for stream in streams:
            os.close(stream)
        calls.send(str(os.waitpid(child, 0)[1]).encode())


def _become(call: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["folder"])
    sys.argv[1:] = call["arguments"]


if __name__ == "__main__":
    _serve(*sys.argv[1:])
