"""Owns the facade's metrics: the table of them, and reading one process's values from its memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from facade.auth.api_tokens import ApiTokens
from facade.auth.logins import Logins
from facade.auth.passwords import Passwords
from facade.health import FacadeHealth
from facade.limits.limits import Limits
from facade.limits.rules import Rule
from facade.metrics.tally import Tally
from facade.sessions.registry import Registry
from facade.store.engine import Store
from medforged import exposition
from medforged.exposition import Metric, counter, gauge, histogram

__all__ = ["METRICS", "WORKER", "WORKER_UP", "FacadeMetrics"]

WORKER = "worker"
"""The label that every metric of the facade has: which of its processes tells it."""

WORKER_UP = gauge("medforge_facade_worker_up", "Whether this process answered the one that was scraped")
_BUILD = gauge("medforge_facade_build_info", "What runs; always 1", "version", "python")

_REQUESTS = counter("medforge_facade_http_requests_total", "Requests answered", "method", "route", "status")
_SECONDS = histogram("medforge_facade_http_request_seconds", "From a request's head to its answer", "route")
_PROXIED = counter("medforge_facade_session_proxy_answers_total", "Answers to the proxy's questions", "status")

_ATTEMPTS = counter("medforge_facade_auth_attempts_total", "Attempts to sign in and up", "attempt", "result")
_REFUSED = counter("medforge_facade_limit_refusals_total", "Attempts refused by a limit", "rule")
_REMEMBERED = gauge("medforge_facade_credentials_remembered", "Credentials known without a query", "kind")
_HASHING = gauge("medforge_facade_passwords_pending", "Passwords that are being hashed or wait for it")

_LIVE = gauge("medforge_facade_watch_live", "Whether the daemon's stream is connected and complete")
_SILENCE = gauge("medforge_facade_watch_silence_seconds", "Since the stream last told anything, heartbeats included")
_BEHIND = gauge("medforge_facade_watch_revisions_behind", "By how much the stream is behind the newest known change")
_SESSIONS = gauge("medforge_facade_sessions", "Active sessions as this process knows them", "status")
_ANSWERS = gauge("medforge_facade_part_answers", "Whether what the facade depends on answers", "part")
_DATABASE = counter("medforge_facade_database_errors_total", "Transactions that the database could not do")

METRICS = (
    WORKER_UP, _BUILD, _REQUESTS, _SECONDS, _PROXIED, _ATTEMPTS, _REFUSED, _REMEMBERED, _HASHING, _LIVE, _SILENCE,
    _BEHIND, _SESSIONS, _ANSWERS, _DATABASE, *exposition.PROCESS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FacadeMetrics:
    """`read` asks neither the daemon nor the database."""

    tally: Tally
    registry: Registry
    logins: Logins
    api_tokens: ApiTokens
    passwords: Passwords
    limits: Limits
    health: FacadeHealth
    store: Store

    async def read(self) -> list[Metric]:
        """This process's families, without the label WORKER."""
        proxied = Counter(self.tally.proxied)
        proxied[200] += self.tally.granted
        failing = {failing.part for failing in self.health.failing()}
        registry = self.registry
        return [
            exposition.build_info(_BUILD),
            _REQUESTS.numbers(self.tally.requests),
            _SECONDS.durations(self.tally.durations),
            _PROXIED.numbers({(str(status),): count for status, count in proxied.items()}),
            _ATTEMPTS.numbers(self.tally.attempts),
            _REFUSED.numbers({(rule.name.lower(),): self.limits.refused[rule] for rule in Rule}),
            _REMEMBERED.numbers(
                {("login",): self.logins.remembered, ("api_token",): self.api_tokens.remembered},
            ),
            _HASHING.number(self.passwords.pending),
            _LIVE.number(registry.live),
            _SILENCE.number(registry.silence_seconds),
            _BEHIND.number(registry.behind),
            _SESSIONS.numbers({(status.value,): count for status, count in registry.by_status().items()}),
            _ANSWERS.numbers({(part,): part not in failing for part in ("daemon", "database")}),
            _DATABASE.number(self.store.failures),
            *exposition.process(),
        ]
