"""The registry over a real watch stream: resumed, re-listed, broken off, silent, and of another database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from uuid import uuid4

import pytest

from facade.config import Settings
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import FakeDaemon, fake_daemon, make_session
from tests.integration.facade.conftest import Api, eventually

pytestmark = pytest.mark.integration
# Nothing here depends on what keeps the accounts.
DATABASES = ("sqlite",)


async def test_active_sessions_are_known_from_the_start(
    daemon: FakeDaemon,
    settings: Settings,
    serving: Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]],
) -> None:
    running = await daemon.put(make_session())
    ended = await daemon.put(make_session(status=SessionStatus.STOPPED))
    async with serving(settings) as api:
        assert api.facade.registry.by_slug(running.slug) == running
        assert api.facade.registry.by_slug(ended.slug) is None


async def test_a_lost_stream_is_resumed(api: Api, daemon: FakeDaemon) -> None:
    kept, gone = await daemon.put(make_session()), await daemon.put(make_session())
    registry = api.facade.registry
    await eventually(lambda: registry.by_id(gone.id) is not None)
    await daemon.lose_streams()
    await eventually(lambda: not registry.live)
    await daemon.end(gone.id)
    new = await daemon.put(make_session())
    await eventually(lambda: registry.live and registry.by_id(new.id) is not None)
    assert registry.by_id(kept.id) == kept
    await eventually(lambda: registry.by_id(gone.id) is None)
    assert daemon.relists == 1


async def test_a_gap_makes_a_whole_list(api: Api, daemon: FakeDaemon) -> None:
    kept, gone = await daemon.put(make_session()), await daemon.put(make_session())
    registry = api.facade.registry
    await eventually(lambda: registry.by_id(gone.id) is not None)
    await daemon.go_away()
    await eventually(lambda: not registry.live)
    await daemon.end(gone.id)
    daemon.forget()
    await daemon.come_back()
    await eventually(lambda: registry.live)
    assert daemon.relists == 2
    assert registry.by_id(kept.id) == kept
    assert registry.by_id(gone.id) is None


async def test_another_database(api: Api, daemon: FakeDaemon) -> None:
    gone = await daemon.put(make_session())
    registry = api.facade.registry
    await eventually(lambda: registry.by_id(gone.id) is not None)
    await daemon.go_away()
    daemon.new_database()
    new = await daemon.put(make_session())
    await daemon.come_back()
    await eventually(lambda: registry.by_id(new.id) is not None)
    assert registry.by_id(gone.id) is None


async def test_before_the_daemon_has_ever_been_heard(
    settings: Settings, serving: Callable[[Settings], contextlib.AbstractAsyncContextManager[Api]]
) -> None:
    """It starts all the same, and does not say "not found" of what it cannot know."""
    async with serving(settings) as api:
        person = await api.person()
        assert (await api.proxy("abcd2345")).status == 401
        answer = await api.proxy("abcd2345", person.token)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert (await api.get("/healthz")).status == 503
        async with fake_daemon(api.socket.parent / "medforged.sock") as late:
            session = await late.put(make_session(person.user_id))
            await eventually(lambda: api.facade.registry.by_slug(session.slug) is not None)
            assert (await api.proxy(session.slug, person.token)).status == 200


async def test_health_over_http(api: Api, daemon: FakeDaemon) -> None:
    assert (await api.get("/healthz")).json == {"data": {"status": "ok"}}
    daemon.recovery_alive = False
    await eventually(lambda: not api.facade.registry.recovery_alive)
    answer = await api.get("/healthz")
    assert (answer.status, answer.data["status"]) == (503, "degraded")
    assert [part["part"] for part in answer.data["failing"]] == ["recovery"]
    daemon.recovery_alive = True
    await eventually(lambda: api.facade.registry.recovery_alive)
    await daemon.go_away()
    await eventually(lambda: not api.facade.registry.live)
    answer = await api.get("/healthz")
    assert [part["part"] for part in answer.data["failing"]] == ["daemon"]
    await daemon.come_back()
    await eventually(lambda: api.facade.registry.live)
    async with asyncio.timeout(10):
        while (await api.get("/healthz")).status != 200:  # noqa: ASYNC110  # the next check tells nobody
            await asyncio.sleep(0.05)


async def test_many_changes_arrive_in_order(api: Api, daemon: FakeDaemon) -> None:
    users = [uuid4() for _ in range(20)]
    sessions = [await daemon.put(make_session(user, status=SessionStatus.STARTING)) for user in users]
    for session in sessions[::2]:
        await daemon.end(session.id, SessionStatus.ERROR)
    await eventually(lambda: len(api.facade.registry._by_id) == 10)
    assert {session.id for session in sessions[1::2]} == set(api.facade.registry._by_id)
