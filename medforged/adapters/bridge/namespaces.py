"""Owns network namespaces of our own: made, entered for one call, and gone with their file descriptor.

They are never mounted anywhere, so nothing of them outlives the process, however it ends. Entering a namespace
changes the calling thread for good; so every call runs in a thread that ends with it. `os.setns` and
`os.unshare` exist from Python 3.12 on; the C library has them everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from medforged.domain.errors import IsolationError

__all__ = ["as_user", "inside", "new_namespace"]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
T = TypeVar("T")


@contextlib.contextmanager
def new_namespace() -> Iterator[int]:
    """A new, empty network namespace as a file descriptor. Raises IsolationError."""

    def make() -> int:
        _check(_libc().unshare(_CLONE_NEWNET), "make a network namespace")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    descriptor = _in_thread(make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def inside(namespace: int, call: Callable[[], T]) -> T:
    """Run a call with the namespace as its network; sockets it makes stay there. Raises what the call raises."""

    def enter() -> T:
        _check(_libc().setns(namespace, _CLONE_NEWNET), "enter a network namespace")
        return call()

    return _in_thread(enter)


def as_user(user_id: int, call: Callable[[], T]) -> T:
    """Run a call in a thread whose file system user, and so the owner of sockets it makes, is another (setfsuid(2))."""

    def become() -> T:
        libc = _libc()
        libc.setfsuid(user_id)
        # The call has no error: it answers what was set before.
        if libc.setfsuid(user_id) != user_id:
            raise IsolationError(f"cannot act as user {user_id}: not permitted; the daemon needs CAP_SETUID")
        return call()

    return _in_thread(become)


def _in_thread(call: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, name="medforge-namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise IsolationError(f"cannot {what}: {reason}; the daemon needs CAP_SYS_ADMIN and RestrictNamespaces=net")
