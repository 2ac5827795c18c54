"""Owns the error tree that services and adapters raise, and nothing else.

    MedForgeError
    ├── Refused                    the caller asked for something that cannot be done now
    │   ├── SessionNotFound
    │   ├── GpuNotFound
    │   ├── PackNotFound
    │   ├── TierUnavailable        the private tier is not enabled
    │   ├── SessionLimitReached
    │   ├── NoGpuAvailable
    │   └── StoppedWhileStarting
    ├── StateConflict              a record was not in the status that a transition expects
    ├── StartupFailed              the daemon cannot start on this host; carries an exit code
    └── HostError                  a part of the host failed
        ├── GpuError
        ├── StateError             the daemon's database cannot be read or written
        ├── WorkspaceError
        ├── ContainerError
        │   ├── ContainerMissing
        │   └── ContainerUnavailable   the container engine itself does not answer
        ├── IsolationError
        ├── NotReady               the IDE's port did not answer in time
        └── CreateFailed           a session could not be started; its record and the journal say why

Messages have the form "cannot X: reason" and say what to do where something can be done.
Constructing an error never logs; whoever handles it logs it once.
"""

from __future__ import annotations

__all__ = [
    "ContainerError",
    "ContainerMissing",
    "ContainerUnavailable",
    "CreateFailed",
    "GpuError",
    "GpuNotFound",
    "HostError",
    "IsolationError",
    "MedForgeError",
    "NoGpuAvailable",
    "NotReady",
    "PackNotFound",
    "Refused",
    "SessionLimitReached",
    "SessionNotFound",
    "StartupFailed",
    "StateConflict",
    "StateError",
    "StoppedWhileStarting",
    "TierUnavailable",
    "WorkspaceError",
]


class MedForgeError(Exception):
    """Base of every error that MedForge raises on purpose."""


class Refused(MedForgeError):
    """The request is well-formed but cannot be granted; the message is safe to show to the caller."""


class SessionNotFound(Refused):
    """No session has this id."""


class GpuNotFound(Refused):
    """No GPU has this id."""


class PackNotFound(Refused):
    """No pack has this id."""


class TierUnavailable(Refused):
    """The tier exists in the contract but is not enabled on this host."""


class SessionLimitReached(Refused):
    """The user already has as many active sessions as allowed."""


class NoGpuAvailable(Refused):
    """No enabled, healthy GPU is free."""


class StoppedWhileStarting(Refused):
    """A stop request arrived before the session was ready."""


class StateConflict(MedForgeError):
    """A session's record is not in a status from which the wanted transition starts."""


class StartupFailed(MedForgeError):
    """The daemon cannot start here. `exit_code` follows sysexits.h (see docs/reference/exit-codes.md)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class HostError(MedForgeError):
    """A part of the host (device, dataset, container, rule) failed."""


class GpuError(HostError):
    """NVML, or one GPU, failed."""


class StateError(HostError):
    """The daemon's database cannot be read or written; nothing of the transaction has been kept."""


class WorkspaceError(HostError):
    """A dataset or snapshot operation failed; the message names the dataset."""


class ContainerError(HostError):
    """A container operation failed; the message names the container."""


class ContainerMissing(ContainerError):
    """The container does not exist (any more)."""


class ContainerUnavailable(ContainerError):
    """The container engine does not answer at all."""


class IsolationError(HostError):
    """East-west isolation could not be established or did not hold when probed."""


class NotReady(HostError):
    """The IDE's port did not answer before the deadline."""


class CreateFailed(HostError):
    """A session could not be started; what was made for it is undone, or recorded to be undone."""
