"""Owns what a process's list of control groups (`/proc/<pid>/cgroup`, cgroups(7)) proves about a container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["is_elsewhere"]


@dataclass(frozen=True, slots=True)
class _Membership:
    """One line: the group in one hierarchy. A legacy hierarchy (version 1) has controllers or a name."""

    controllers: frozenset[str]
    path: str
    unified: bool


def is_elsewhere(text: str, container_id: str) -> bool:
    """Whether this list proves that its process is not in the container, whose id is 64 hexadecimal digits.

    A container's processes are in groups that bear its id: `/docker/<id>` or `…/docker-<id>.scope`, or below such a
    group. So a process is elsewhere when it is in some group, and no line names the id. The root of a hierarchy is no
    such group: in the legacy hierarchies every process that has begun to end is said to be there (kernel,
    `proc_cgroup_show`), which is just how one looks that hangs on a GPU. What really is there counts as well: kernel
    threads, which no driver lists, and on a host without systemd whatever nobody has put into a group. A line that is
    not understood proves nothing.
    """
    lines = [_parse(line) for line in text.splitlines()]
    memberships = [line for line in lines if line is not None]
    if len(memberships) < len(lines) or container_id in text.lower():
        return False
    return any(membership.path.rstrip("/") for membership in _telling(memberships))


def _telling(memberships: Sequence[_Membership]) -> list[_Membership]:
    """Those of the hierarchies in which an engine puts its containers.

    The legacy ones where they have the devices controller, which the unified one lacks: there the unified hierarchy is
    systemd's, and shows containers only with some versions of runc. Else the unified one alone: other programs may
    have mounted a legacy hierarchy for themselves (net_cls, for example).
    """
    legacy = [membership for membership in memberships if not membership.unified]
    if any("devices" in membership.controllers for membership in legacy):
        return legacy
    return [membership for membership in memberships if membership.unified]


def _parse(line: str) -> _Membership | None:
    """`4:memory:/docker/<id>`, or `0::/system.slice/docker-<id>.scope` in the unified hierarchy; None: neither."""
    number, first, rest = line.partition(":")
    controllers, second, path = rest.partition(":")
    # A group outside of the reader's own root is told by way of `/..`, of which nothing follows.
    if not (first and second and number.isdigit() and path.startswith("/")) or ".." in path.split("/"):
        return None
    return _Membership(frozenset(controllers.split(",")), path, unified=number == "0" and not controllers)
