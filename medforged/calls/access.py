"""Owns which access level a peer has, by the names of users and groups of this host."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from medforged.calls.peercred import Peer
from medforged.contract.methods import Access

__all__ = ["AccessPolicy", "group_id", "policy_for"]


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """None stands for a user or group that this host does not have."""

    facade_uid: int | None
    operator_gid: int | None
    own_uid: int

    def level(self, peer: Peer) -> Access:
        """The facade's uid is looked at first: it is in the group that may open the socket, but never an operator."""
        if peer.uid == 0:
            return Access.OPERATOR
        if peer.uid == self.facade_uid:
            return Access.FACADE
        # A program without root (the simulate profile) serves the user who started it.
        if peer.uid == self.own_uid or (self.operator_gid is not None and self.operator_gid in peer.groups):
            return Access.OPERATOR
        return Access.NONE


def policy_for(facade_user: str, operator_group: str) -> AccessPolicy:
    """Look the names up once; a name that does not exist grants nothing."""
    try:
        facade_uid: int | None = pwd.getpwnam(facade_user).pw_uid
    except KeyError:
        facade_uid = None
    return AccessPolicy(facade_uid, group_id(operator_group), os.geteuid())


def group_id(name: str) -> int | None:
    """The number of a group, None for one that this host does not have."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
