"""Owns whether users, sockets and the daemon itself are as they have to be."""

from __future__ import annotations

import asyncio
import grp
import pwd
import socket
import stat
from pathlib import Path

from medforged.calls.peercred import peer_of
from medforged.client import DaemonClient, DaemonError
from medforged.config import Settings
from medforged.contract import methods
from medforged.contract.daemon import DaemonStatus, GetStatus, Health
from medforged.contract.doctor import Examination, Kind, failed, fine, skipped

__all__ = ["examine_programs"]

_SYSUSERS = "`systemd-sysusers`, or run deploy/install again"


async def examine_programs(settings: Settings) -> list[Examination]:
    """Users and groups, the daemon's socket, what the daemon says of itself, and whether Docker sees its mounts."""
    found = [_account(settings), _socket(settings)]
    try:
        async with asyncio.timeout(20), DaemonClient(Path(settings.daemon.socket)) as client:
            told = await client.call(methods.daemon_status, GetStatus())
    except (DaemonError, TimeoutError) as error:
        remedy = "start it: `systemctl start medforged`; see `journalctl -u medforged`"
        return [*found, failed(Kind.SERVICES, "medforged", f"does not answer: {error}", remedy)]
    return [*found, *_status(told), _mounts(Path(settings.daemon.socket))]


def _account(settings: Settings) -> Examination:
    subject, user, group = "users and groups", settings.daemon.facade_user, settings.daemon.operator_group
    try:
        identity = pwd.getpwnam(user)
    except KeyError:
        return failed(Kind.PERMISSIONS, subject, f"there is no user {user}", _SYSUSERS)
    try:
        members = grp.getgrnam(group)
    except KeyError:
        return failed(Kind.PERMISSIONS, subject, f"there is no group {group}", _SYSUSERS)
    if identity.pw_uid == 0:
        return failed(
            Kind.PERMISSIONS, subject, f"{user} is root: the facade would be", "name another daemon.facade_user"
        )
    if any(entry.gr_name == "docker" and user in entry.gr_mem for entry in grp.getgrall()):
        remedy = f"`gpasswd --delete {user} docker`, then restart medforge-facade"
        return failed(Kind.PERMISSIONS, subject, f"{user} is in the group docker, which is as good as root", remedy)
    operators = sorted(set(members.gr_mem) - {user})
    return fine(Kind.PERMISSIONS, subject, f"operators: root{''.join(f', {name}' for name in operators)}")


def _socket(settings: Settings) -> Examination:
    subject, path = "daemon's socket", Path(settings.daemon.socket)
    start = "`systemctl start medforged.socket`"
    try:
        seen = path.stat()
    except OSError as error:
        return failed(Kind.SERVICES, subject, f"{path}: {error.strerror}", start)
    if not stat.S_ISSOCK(seen.st_mode):
        return failed(Kind.SERVICES, subject, f"{path} is no socket", f"move it away, then {start}")
    if seen.st_mode & 0o007 or seen.st_uid != 0:
        told = f"{path} belongs to user {seen.st_uid} with mode {stat.S_IMODE(seen.st_mode):04o}, not to root with 0660"
        return failed(Kind.PERMISSIONS, subject, told, "restart medforged.socket")
    return fine(Kind.SERVICES, subject, str(path))


def _status(told: DaemonStatus) -> list[Examination]:
    found = [fine(Kind.SERVICES, "medforged", f"{told.version} answers")]
    for check in told.checks:
        if check.health is not Health.OK:
            remedy = "as the message says; see `medforgectl status` and `journalctl -u medforged`"
            found.append(failed(Kind.SERVICES, f"medforged's {check.name}", check.message, remedy))
    return found


def _mounts(path: Path) -> Examination:
    """Whether the daemon mounts where everybody sees it: in another namespace, workspaces would be empty folders."""
    subject = "daemon's mounts"
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            # Of a socket that systemd made, the kernel names systemd itself; the daemon's own pid is in its unit then.
            pid = peer_of(probe).pid
        if pid == 1:
            pid = _main_pid()
        same = Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/1/ns/mnt").readlink()
    except (OSError, ValueError) as error:
        return skipped(Kind.SERVICES, subject, f"cannot be looked at: {error}")
    if same:
        return fine(Kind.SERVICES, subject, "are the host's")
    remedy = "remove directives like PrivateTmp= and ProtectSystem= from medforged.service and its drop-ins"
    return failed(
        Kind.SERVICES, subject, "medforged has a mount namespace of its own: Docker does not see its mounts", remedy
    )


def _main_pid() -> int:
    """The daemon's process, by its control group. Raises OSError, ValueError."""
    return int(Path("/sys/fs/cgroup/system.slice/medforged.service/cgroup.procs").read_text().split()[0])
