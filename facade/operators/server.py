"""Owns who may call the operator socket, and what it answers: root and the operator group, never the facade itself."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from facade.config import Operators
from facade.listening import BACKLOG
from facade.operators.handlers import UserHandlers, code_of
from medforged.calls.access import AccessPolicy, group_id
from medforged.calls.server import CallServer, Handler, Program
from medforged.contract.operators import OPERATOR_METHODS

__all__ = ["operator_policy", "operator_server", "serving_operators"]

_FACADE = Program("facade", "facade.operators", "call POST /v1/<method>; see docs/reference/operator-rpc.md")


def operator_policy(settings: Operators) -> AccessPolicy:
    """The facade's own user is in the operator group, so that it can reach the daemon, and is no operator for that."""
    own = os.geteuid()
    return AccessPolicy(
        facade_uid=None if settings.own_user else own, operator_gid=group_id(settings.group), own_uid=own
    )


def operator_server(users: UserHandlers, policy: AccessPolicy) -> CallServer:
    """What answers on the operator socket."""
    handlers: dict[str, Handler] = {
        "users.list": users.list,
        "users.create": users.create,
        "users.change": users.change,
        "users.set_password": users.set_password,
        "users.sign_out": users.sign_out,
    }
    return CallServer(_FACADE, OPERATOR_METHODS, handlers, policy, code_of)


@asynccontextmanager
async def serving_operators(server: CallServer, listener: socket.socket, drain_seconds: float) -> AsyncIterator[None]:
    """Answer calls for as long as the context lasts, and those that have begun to their end."""
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=drain_seconds)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        yield
    finally:
        server.stop_accepting()
        await server.drain(drain_seconds)
        await runner.cleanup()
