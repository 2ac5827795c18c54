"""Owns what a process of the facade counts as it serves: plain numbers, so that counting costs next to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from facade.problems import Problem
from medforged.exposition import Durations

__all__ = ["METHODS", "OTHER", "Attempt", "Tally"]

OTHER = "other"
"""Stands for whatever a client makes up: routes and methods that there are not."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# From an answer out of memory to a session's start.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)
_RESULTS = {401: "refused", 403: "disabled", 409: "taken", 429: "limited", 503: "busy"}


class Attempt(StrEnum):
    """What somebody without a login tries."""

    LOGIN = "login"
    SIGNUP = "signup"


class Tally:
    """One process's counts since it started."""

    def __init__(self) -> None:
        self.granted = 0
        """Questions of the proxy that the fast path has answered with 200."""
        self.proxied: Counter[int] = Counter()
        """All others, by status."""
        self.requests: Counter[tuple[str, ...]] = Counter()
        """Other requests by method, route and status."""
        self.durations: dict[tuple[str, ...], Durations] = {}
        """How long they took, by route."""
        self.attempts: Counter[tuple[str, ...]] = Counter()
        """Attempts to sign in and up, and their results."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has been answered. `route` is a template of the table, or OTHER."""
        self.requests[method if method in METHODS else OTHER, route, str(status)] += 1
        durations = self.durations.get((route,))
        if durations is None:
            durations = self.durations[route,] = Durations(_BOUNDS)
        durations.observe(seconds)

    @contextmanager
    def attempt(self, what: Attempt) -> Iterator[None]:
        """Around an attempt: `ok`, or what its problem's status means, or `failed` where nobody can tell."""
        result = "failed"
        try:
            yield
            result = "ok"
        except Problem as problem:
            result = _RESULTS.get(problem.status, result)
            raise
        finally:
            self.attempts[what, result] += 1
