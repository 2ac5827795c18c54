"""Owns writing events to systemd's journal with fields of their own, in its native protocol.

systemd.io/JOURNAL_NATIVE_PROTOCOL: a datagram of `NAME=value` lines; a value with a newline goes with its length before
it, so nothing that is written into a value can become a field. A large entry goes as a sealed memory file.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

__all__ = ["SOCKET", "JournalSocket", "encoded", "fields_of", "is_stderr", "message_id"]

SOCKET = Path("/run/systemd/journal/socket")
# syslog(3); the journal shows and filters by them.
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
# These keep their names, under which operators look for them.
_OWN_NAMES = frozenset({"session_id", "user_id", "slug", "gpu_id", "correlation_id"})
# Said by the journal itself, or by other fields.
_TOLD_ELSEWHERE = frozenset({"event", "level", "timestamp"})
# Every kind of event has an id, made of its name in this namespace.
_EVENTS = UUID("5c8f6a2e-4d0b-4f6e-9a57-2f1d8f0c7b31")
# The journal's own limits (systemd, journal-file and journald-native).
_NAME_BYTES = 64
_PREFIX = "MEDFORGE_"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def is_stderr(environ: Mapping[str, str]) -> bool:
    """Whether what this process writes to standard error goes to the journal (JOURNAL_STREAM, systemd.exec(5))."""
    found = re.fullmatch(r"(\d+):(\d+)", environ.get("JOURNAL_STREAM", ""))
    if found is None:
        return False
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (int(found[1]), int(found[2]))


def message_id(event: str) -> str:
    """The MESSAGE_ID of a kind of event: 32 hexadecimal digits, the same for ever."""
    return uuid5(_EVENTS, event).hex


def fields_of(event: Mapping[str, Any], identifier: str) -> dict[str, str]:
    """An event of structlog as fields of the journal. The message reads as a line: the event's name, then the rest."""
    name = _text(event.get("event", ""))
    details = {key: _text(value) for key, value in event.items() if key not in _TOLD_ELSEWHERE and value is not None}
    exception = details.pop("exception", "")
    told = " ".join([name, *(f"{key}={_quoted(value)}" for key, value in details.items())])
    fields = {_named(key): value for key, value in details.items()}
    return {
        **fields,
        "MESSAGE": f"{told}\n{exception}" if exception else told,
        "MESSAGE_ID": message_id(name),
        "PRIORITY": str(_PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])),
        "SYSLOG_IDENTIFIER": identifier,
        "EVENT": name,
    }


def encoded(fields: Mapping[str, str]) -> bytes:
    """The datagram."""
    parts = []
    for name, value in fields.items():
        data = value.encode()
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class JournalSocket:
    """Sends entries and never waits: a journal that does not take one at once does not get it."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Whether the journal has taken it."""
        entry = encoded(fields)
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                return False
            return self._send_file(entry)
        return True

    def close(self) -> None:
        self._socket.close()

    def _send_file(self, entry: bytes) -> bool:
        """What is too large for a datagram; sealed, for the journal maps it."""
        try:
            file = os.memfd_create("medforge-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        except OSError:
            return False
        try:
            with os.fdopen(file, "wb", closefd=False) as out:
                out.write(entry)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
            self._socket.sendmsg([], passed, 0, self._path)
        except OSError:
            return False
        finally:
            os.close(file)
        return True


def _named(key: str) -> str:
    """The name of a field: never one that the journal trusts (`_…`) or reads itself (`MESSAGE`, `PRIORITY`)."""
    if key in _OWN_NAMES:
        return key.upper()
    return (_PREFIX + re.sub("[^A-Z0-9_]", "_", key.upper()))[:_NAME_BYTES]


def _text(value: object) -> str:
    """What is no text, as half of a surrogate pair, is shown as what it is: no event is lost for it."""
    return str(value).encode(errors="backslashreplace").decode()


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[!-~]+", value) else repr(value)
