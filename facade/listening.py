"""Owns the sockets that requests and operators come in by: passed by systemd, a Unix socket, or a TCP port."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from facade.config import Listen, Metrics, Operators, tcp_address
from facade.startup import StartupFailed
from medforged.contract.exitcodes import ExitCode

__all__ = ["BACKLOG", "Listener", "Passed", "listen", "listen_for_metrics", "listen_to_operators", "take_passed"]

# sd_listen_fds(3): passed descriptors start here.
_FIRST_PASSED = 3
BACKLOG = 1024
_METRICS_MODE = 0o660
# FileDescriptorName= of the operator socket; any other name is the public one's.
_OPERATOR = "operator"
_OPERATOR_MODE = 0o660
# A living server accepts at once, for the kernel does it.
_PROBE_SECONDS = 2.0


@dataclass(slots=True)
class Listener:
    """A listening socket, and the file to remove at the end when it is ours."""

    socket: socket.socket
    told: str
    path: Path | None = None
    inode: int = 0

    def close(self) -> None:
        """Close it, and remove the socket's file unless another process has put its own there."""
        self.socket.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                if self.path.lstat().st_ino == self.inode:
                    self.path.unlink()


@dataclass(frozen=True, slots=True)
class Passed:
    """The sockets that systemd, or whoever acts like it, has passed to this process."""

    public: socket.socket | None = None
    operators: socket.socket | None = None


def listen(settings: Listen, passed: Passed) -> Listener:
    """Take the public socket that was passed, or open what the settings name. Raises StartupFailed."""
    if passed.public is not None:
        return Listener(passed.public, "a socket passed by systemd")
    if settings.tcp:
        return _tcp(*tcp_address(settings.tcp), "listen.tcp")
    return _unix(
        Path(settings.socket),
        int(settings.socket_mode, 8),
        settings.socket_group,
        _Keys("listen.socket", "listen.socket_group"),
    )


def listen_for_metrics(settings: Metrics) -> Listener | None:
    """Open what Prometheus reads; None where that is not asked for. Raises StartupFailed."""
    if not settings.listen:
        return None
    if settings.listen.startswith("/"):
        return _unix(
            Path(settings.listen), _METRICS_MODE, settings.socket_group, _Keys("metrics.listen", "metrics.socket_group")
        )
    return _tcp(*tcp_address(settings.listen, "metrics.listen"), "metrics.listen")


def listen_to_operators(settings: Listen, operators: Operators, passed: Passed) -> Listener | None:
    """Take the operator socket that was passed, or open the one that is named, if any. Raises StartupFailed."""
    if passed.operators is not None:
        return Listener(passed.operators, "a socket passed by systemd")
    if not settings.operator_socket:
        return None
    # Where one user runs everything, there need be no such group.
    group = "" if operators.own_user else operators.group
    return _unix(
        Path(settings.operator_socket), _OPERATOR_MODE, group, _Keys("listen.operator_socket", "operators.group")
    )


def take_passed(environ: MutableMapping[str, str]) -> Passed:
    """The sockets of sd_listen_fds(3); what tells of them is taken out of the environment. Raises StartupFailed."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or pid != str(os.getpid()):
        return Passed()
    public: list[int] = []
    operators: list[int] = []
    for number in range(int(count)):
        named = names[number] if number < len(names) else ""
        (operators if named == _OPERATOR else public).append(_FIRST_PASSED + number)
    if len(public) > 1 or len(operators) > 1:
        raise StartupFailed(
            f"cannot listen: systemd passes {count} sockets, and the facade takes one, and one more whose "
            f"FileDescriptorName= is {_OPERATOR}; leave one ListenStream= in each of its socket units",
            ExitCode.CONFIG,
        )
    return Passed(_taken(public[0]) if public else None, _taken(operators[0]) if operators else None)


def _taken(descriptor: int) -> socket.socket:
    try:
        found = socket.socket(fileno=descriptor)
        found.set_inheritable(False)
    except OSError as error:
        raise StartupFailed(
            f"cannot listen: LISTEN_FDS is set, but descriptor {descriptor} is not a socket ({error.strerror}); "
            "start the facade through its socket unit, or unset LISTEN_FDS",
            ExitCode.CONFIG,
        ) from error
    found.setblocking(False)
    return found


@dataclass(frozen=True, slots=True)
class _Keys:
    """The settings that name a Unix socket's path and group, for messages."""

    path: str
    group: str


def _tcp(host: str, port: int, setting: str) -> Listener:
    told = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    made = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        if made is not None:
            made.close()
        remedy = f"set {setting}"
        if error.errno == errno.EADDRINUSE:
            remedy = f"stop what listens there or {remedy}"
        code = ExitCode.NO_PERMISSION if error.errno == errno.EACCES else ExitCode.UNAVAILABLE
        raise StartupFailed(f"cannot listen on {told}: {error.strerror}; {remedy}", code) from error
    made.setblocking(False)
    if port == 0:
        told = f"{host}:{made.getsockname()[1]}"
    return Listener(made, told)


def _unix(path: Path, mode: int, group: str, keys: _Keys) -> Listener:
    gid = _group(group, keys)
    _clear(path, keys)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody else may connect before mode and group are set.
    mask = os.umask(0o177)
    try:
        made.bind(str(path))
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
        made.listen(BACKLOG)
        inode = path.lstat().st_ino
    except OSError as error:
        made.close()
        code = ExitCode.NO_PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else ExitCode.UNAVAILABLE
        raise StartupFailed(
            f"cannot listen on {path}: {error.strerror or error}; its folder must exist and belong to the facade's "
            f"user, who must be in the socket's group ({keys.path}, {keys.group})",
            code,
        ) from error
    finally:
        os.umask(mask)
    made.setblocking(False)
    return Listener(made, str(path), path, inode)


def _group(name: str, keys: _Keys) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise StartupFailed(
            f"cannot listen: there is no group {name!r}; create it or correct {keys.group}",
            ExitCode.CONFIG,
        ) from error


def _clear(path: Path, keys: _Keys) -> None:
    """Remove the socket file of a process that has died; anything else that is in the way stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartupFailed(
            f"cannot listen on {path}: {error.strerror}; correct {keys.path}", ExitCode.UNAVAILABLE
        ) from error
    if not stat.S_ISSOCK(mode):
        raise StartupFailed(
            f"cannot listen on {path}: a file that is not a socket is there; move it away or correct {keys.path}",
            ExitCode.CONFIG,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise StartupFailed(
                f"cannot listen on {path}: the socket there cannot be tried ({error}); remove it if nothing uses it",
                ExitCode.UNAVAILABLE,
            ) from error
    raise StartupFailed(
        f"cannot listen on {path}: another process listens there; stop it or correct {keys.path}",
        ExitCode.UNAVAILABLE,
    )
