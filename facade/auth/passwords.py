"""Owns passwords: which are accepted, and hashing and checking them with argon2id away from the event loop."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import argon2

__all__ = ["ACCEPTABLE", "MAX_LENGTH", "MIN_LENGTH", "Busy", "Checked", "Passwords", "acceptable"]

MIN_LENGTH = 8
MAX_LENGTH = 128
ACCEPTABLE = f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters."

R = TypeVar("R")


class Busy(Exception):
    """More passwords are waiting to be checked than can be within a few seconds."""


@dataclass(frozen=True, slots=True)
class Checked:
    """`outdated`: the hash was made with other parameters than are used now, and should be made anew."""

    right: bool
    outdated: bool = False


def acceptable(password: str) -> bool:
    """8 to 128 characters, of any kind."""
    return MIN_LENGTH <= len(_same(password)) <= MAX_LENGTH


class Passwords:
    """Hashes in a pool of its own. Defaults of cost are the library's: RFC 9106's second recommendation.

    At most `workers` hashes are computed at a time, each of which takes `memory_kib`, and `waiting` more may
    wait; beyond that callers are told to come back, instead of filling the memory. A quarter of the places to wait is
    for those who are known to the account, so that a crowd of strangers does not keep them out.
    """

    def __init__(
        self,
        *,
        time_cost: int = argon2.DEFAULT_TIME_COST,
        memory_kib: int = argon2.DEFAULT_MEMORY_COST,
        parallelism: int = argon2.DEFAULT_PARALLELISM,
        workers: int = 2,
        waiting: int = 64,
    ) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="argon2")
        self._capacity = workers + waiting
        self._reserved = waiting // 4
        self._pending = 0
        # Checked in place of an unknown user's hash, so that both take the same time.
        self._decoy = self._hasher.hash(secrets.token_urlsafe())

    @property
    def pending(self) -> int:
        """How many are being hashed, or wait for it."""
        return self._pending

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def hash(self, password: str, *, known: bool = False) -> str:
        """A new hash with a salt of its own. Raises Busy."""
        return await self._run(lambda: self._hasher.hash(_same(password)), known=known)

    async def check(self, stored: str | None, password: str, *, known: bool = False) -> Checked:
        """Whether the password is the one of the hash; None, for no such user, is as slow and never right.

        `known`: asked by somebody who has signed in to the account before. Raises Busy.
        """
        return await self._run(lambda: self._check(stored, password), known=known)

    def _check(self, stored: str | None, password: str) -> Checked:
        try:
            self._hasher.verify(stored or self._decoy, _same(password))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return Checked(right=False)
        if stored is None:
            return Checked(right=False)
        return Checked(right=True, outdated=self._hasher.check_needs_rehash(stored))

    async def _run(self, job: Callable[[], R], *, known: bool = False) -> R:
        if self._pending >= self._capacity - (0 if known else self._reserved):
            raise Busy("cannot check the password now: too many others are waiting; try again in a few seconds")
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, job)
        finally:
            self._pending -= 1


def _same(password: str) -> str:
    """One form for what looks the same, so that a password typed on another keyboard or system is still right."""
    return unicodedata.normalize("NFC", password)
