"""Owns the composition of the facade: the only module that knows all of its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from facade.admin.handlers import AdminHandlers
from facade.auth.accounts import Accounts
from facade.auth.addresses import Addresses
from facade.auth.administration import Administration
from facade.auth.api_token_handlers import ApiTokenHandlers
from facade.auth.api_tokens import ApiTokens
from facade.auth.attempts import Attempts
from facade.auth.cookies import Cookies
from facade.auth.devices import KEY_BYTES, Devices
from facade.auth.handlers import AuthHandlers
from facade.auth.logins import Logins
from facade.auth.origins import OriginGuard
from facade.auth.passwords import Passwords
from facade.auth.revision import Revision
from facade.background import every
from facade.clock import Clock, SystemClock
from facade.config import Settings
from facade.health import FacadeHealth
from facade.hosts import Hosts
from facade.limits.limits import Limits
from facade.limits.rules import Rule, windows
from facade.limits.table import SharedTable
from facade.metrics.collection import FacadeMetrics
from facade.metrics.tally import Tally
from facade.middleware.access import Access
from facade.middleware.bodies import slow_bodies
from facade.middleware.requests import Requests
from facade.openapi.document import document
from facade.openapi.handlers import OpenApiHandlers
from facade.operators.handlers import UserHandlers
from facade.operators.server import operator_policy, operator_server
from facade.routes import Handlers, table
from facade.routing import mount
from facade.sessions.fastpath import FastPath
from facade.sessions.follower import follow
from facade.sessions.handlers import SessionHandlers
from facade.sessions.proxy import SessionProxy
from facade.sessions.registry import Registry
from facade.sessions.service import SessionService
from facade.site import Site
from facade.store.accounts import AccountRows
from facade.store.api_tokens import ApiTokenRows
from facade.store.engine import Store
from facade.store.logins import LoginRows
from facade.store.revisions import Revisions
from facade.store.secrets import Secrets
from facade.store.users import Users
from medforged import __version__
from medforged.calls.server import CallServer
from medforged.client import DaemonClient, DaemonError
from medforged.contract import methods
from medforged.contract.daemon import GetStatus

__all__ = ["Facade", "assemble", "prepare"]

_log = structlog.get_logger()

# How soon a login that another process has ended is refused here (at most a second is promised).
_POLL_SECONDS = 0.5
_DAEMON_HEALTH_SECONDS = 2.0
_EXPIRY_SECONDS = 3600.0
# How long a start waits to hear the daemon's sessions, so that no page of a running one fails meanwhile: shortly where
# nobody listens at the daemon's socket, longer where the daemon is being restarted, but less than Caddy waits.
_FIRST_LIST_SECONDS = 2.0
_RESTART_SECONDS = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facade:
    """A running facade: what it serves, what answers before that, and the parts that tests look at."""

    app: web.Application
    fast_path: FastPath
    metrics: FacadeMetrics
    operators: CallServer
    registry: Registry
    logins: Logins
    api_tokens: ApiTokens
    revision: Revision
    accounts: Accounts
    administration: Administration
    users: Users
    store: Store
    clock: Clock


async def prepare(settings: Settings) -> None:
    """Bring the database up to date, once for all processes that will use it. Raises StartupFailed."""
    store = Store.of(settings.database)
    try:
        await store.open()
    finally:
        await store.close()


@asynccontextmanager
async def assemble(
    settings: Settings,
    *,
    clock: Clock | None = None,
    passwords: Passwords | None = None,
    counters: SharedTable | None = None,
    prepared: bool = False,
    chores: bool = True,
) -> AsyncIterator[Facade]:
    """Build everything, keep its background work going, and take it down again. Raises StartupFailed.

    `counters`: the table of limits, where several processes share them; it is closed at the end. `prepared`: somebody
    has called `prepare`. `chores`: do what one process has to do for all.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        store = Store.of(settings.database)
        stack.push_async_callback(store.close)
        if not prepared:
            await store.open()
        passwords = passwords or Passwords()
        stack.callback(passwords.close)
        counters = counters or SharedTable.create(len(Rule))
        stack.callback(counters.close)
        client = await stack.enter_async_context(DaemonClient(Path(settings.daemon.socket)))

        hosts = Hosts(settings.site.domain, settings.site.https_port)
        cookies = Cookies(
            hosts.cookie_domain, secure=settings.auth.cookie_secure, max_age_seconds=int(settings.auth.max_ttl_seconds)
        )
        users = Users(store)
        revision = Revision(Revisions(store))
        api_tokens = ApiTokens(ApiTokenRows(store), clock, revision)
        logins = Logins(
            LoginRows(store),
            clock,
            revision,
            idle_ttl=timedelta(seconds=settings.auth.idle_ttl_seconds),
            max_ttl=timedelta(seconds=settings.auth.max_ttl_seconds),
        )
        registry = Registry()
        health = FacadeHealth(client, registry, revision)
        rows = AccountRows(store)
        accounts = Accounts(
            users, rows, passwords, revision, clock, max_concurrent_sessions=settings.sessions.max_concurrent
        )
        administration = Administration(users, rows, passwords, revision, clock)
        devices = Devices(
            await Secrets(store, clock).get("device-cookies", KEY_BYTES),
            clock,
            secure=settings.auth.cookie_secure,
            ttl=timedelta(seconds=settings.auth.device_ttl_seconds),
        )
        addresses, tally = Addresses(settings.listen.trusted_proxies), Tally()
        limits = Limits(counters, windows(settings.limits), clock)
        attempts = Attempts(limits, addresses, devices)
        sessions = SessionService(client, registry)
        handlers = Handlers(
            api_tokens=ApiTokenHandlers(api_tokens, attempts, cookies),
            auth=AuthHandlers(accounts, attempts, logins, cookies, tally),
            sessions=SessionHandlers(sessions),
            proxy=SessionProxy(hosts, cookies, logins, registry),
            health=health,
            admin=AdminHandlers(administration, sessions),
            openapi=OpenApiHandlers(),
        )
        operators = operator_server(
            UserHandlers(administration, users, max_concurrent_sessions=settings.sessions.max_concurrent),
            operator_policy(settings.operators),
        )
        routes = table(handlers)
        handlers.openapi.publish(document(routes, version=__version__))
        origins = OriginGuard(hosts.origins | frozenset(settings.site.development_origins))
        site = Site(
            Path(settings.site.web_root) if settings.site.web_root else None,
            hosts,
            any_host=settings.site.any_host,
        )
        outermost = Requests(tally, addresses).middleware
        in_time = slow_bodies(settings.listen.body_seconds, settings.listen.body_max_bytes)
        app = web.Application(middlewares=[outermost, in_time], client_max_size=settings.listen.body_max_bytes)
        mount(app, routes, Access(hosts, origins, cookies, logins, api_tokens))
        site.mount(app)

        stack.push_async_callback(logins.write_uses, everything=True)
        stack.push_async_callback(api_tokens.write_uses)
        expiries = (
            ("logins.remove_expired", logins.remove_expired),
            ("api_tokens.remove_expired", api_tokens.remove_expired),
        )
        await stack.enter_async_context(
            _running(
                follow(client, registry),
                *(every(_EXPIRY_SECONDS, name, chore) for name, chore in expiries if chores),
                every(_POLL_SECONDS, "revision.poll", health.check_database),
                every(logins.write_interval_seconds, "logins.write_uses", logins.write_uses),
                every(api_tokens.write_interval_seconds, "api_tokens.write_uses", api_tokens.write_uses),
                every(_DAEMON_HEALTH_SECONDS, "daemon.health", health.check_daemon),
            )
        )
        await _hear_sessions(client, registry)
        if not registry.known:
            _log.warning("daemon.unheard", reason=registry.lost)
        yield Facade(
            app=app,
            fast_path=FastPath(hosts, logins, registry, tally),
            metrics=FacadeMetrics(
                tally=tally,
                registry=registry,
                logins=logins,
                api_tokens=api_tokens,
                passwords=passwords,
                limits=limits,
                health=health,
                store=store,
            ),
            operators=operators,
            registry=registry,
            logins=logins,
            api_tokens=api_tokens,
            revision=revision,
            accounts=accounts,
            administration=administration,
            users=users,
            store=store,
            clock=clock,
        )


async def _hear_sessions(client: DaemonClient, registry: Registry) -> None:
    """Wait until the daemon has told its sessions, for as long as it makes sense."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_RESTART_SECONDS) as limit:
            try:
                await client.call(methods.daemon_health, GetStatus())
            except DaemonError:
                limit.reschedule(asyncio.get_running_loop().time() + _FIRST_LIST_SECONDS)
            await registry.wait_known()


@asynccontextmanager
async def _running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Background work for as long as the context lasts."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
