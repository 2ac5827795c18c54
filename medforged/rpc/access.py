"""Owns which access level a peer has."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from medforged.contract.methods import Access
from medforged.rpc.peercred import Peer

__all__ = ["AccessPolicy", "policy_for"]


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
        # A daemon without root (the simulate profile) serves the user who started it.
        if peer.uid == self.own_uid or (self.operator_gid is not None and self.operator_gid in peer.groups):
            return Access.OPERATOR
        return Access.NONE


def policy_for(facade_user: str, operator_group: str) -> AccessPolicy:
    """Look the names up once; a name that does not exist grants nothing."""
    try:
        facade_uid: int | None = pwd.getpwnam(facade_user).pw_uid
    except KeyError:
        facade_uid = None
    try:
        operator_gid: int | None = grp.getgrnam(operator_group).gr_gid
    except KeyError:
        operator_gid = None
    return AccessPolicy(facade_uid, operator_gid, os.geteuid())
