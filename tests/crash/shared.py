"""Owns the memory that a daemon and whoever watches it have in common: what is written there outlives a SIGKILL."""

from __future__ import annotations

import mmap
import struct

__all__ = ["Shared"]

_SIZE = 1 << 20
_ARMED, _IDLE, _DISTURBED, _ACTING = 0, 1, 2, 3
_LENGTH = struct.Struct("<Q")
_LENGTH_AT, _TRACE_AT = 8, 16


class Shared:
    """Made before a daemon is forked. One daemon at a time."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)

    def reset(self, *, armed: bool, disturbed: bool) -> None:
        """For the next daemon."""
        self.armed, self.disturbed, self.idle, self.acting = armed, disturbed, False, False
        self.forget()

    def forget(self) -> None:
        """Let the trace begin anew, while points do not count."""
        _LENGTH.pack_into(self._memory, _LENGTH_AT, 0)

    @property
    def armed(self) -> bool:
        """Whether points count."""
        return self._memory[_ARMED] == 1

    @armed.setter
    def armed(self, value: bool) -> None:
        self._memory[_ARMED] = value

    @property
    def idle(self) -> bool:
        """Whether the daemon waits for somebody or something else, and will do nothing more by itself."""
        return self._memory[_IDLE] == 1

    @idle.setter
    def idle(self, value: bool) -> None:
        self._memory[_IDLE] = value

    @property
    def disturbed(self) -> bool:
        """Whether a scenario's faults strike."""
        return self._memory[_DISTURBED] == 1

    @disturbed.setter
    def disturbed(self, value: bool) -> None:
        self._memory[_DISTURBED] = value

    @property
    def acting(self) -> bool:
        """Whether what the daemon does is the scenario's act, after a recovery in the same life."""
        return self._memory[_ACTING] == 1

    @acting.setter
    def acting(self, value: bool) -> None:
        self._memory[_ACTING] = value

    def tell(self, label: str, left: str) -> None:
        """Note a point that the daemon has reached, and what a crash there leaves, if that is known."""
        (length,) = _LENGTH.unpack_from(self._memory, _LENGTH_AT)
        data = f"{label}\t{left}\n".encode()
        end = _TRACE_AT + length + len(data)
        if end > _SIZE:
            raise OverflowError("the daemon has reached more points than there is room for: it does not come to rest")
        self._memory[_TRACE_AT + length : end] = data
        _LENGTH.pack_into(self._memory, _LENGTH_AT, length + len(data))

    @property
    def trace(self) -> dict[str, str]:
        """The points reached, in order, and what was told of each."""
        (length,) = _LENGTH.unpack_from(self._memory, _LENGTH_AT)
        lines = self._memory[_TRACE_AT : _TRACE_AT + length].decode().splitlines()
        return {label: left for label, _, left in (line.partition("\t") for line in lines)}
