"""What the facade says of its own health, part by part."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from facade.background import every
from facade.health import FacadeHealth
from facade.sessions.registry import Registry
from medforged.client import DaemonError
from medforged.contract.daemon import Check, DaemonHealth, Health
from medforged.contract.errors import ErrorCode
from medforged.contract.watch import Heartbeat, Synced

pytestmark = pytest.mark.unit


class Client:
    answer: DaemonHealth | DaemonError = DaemonHealth(health=Health.OK, checks=[])

    async def call(self, *_: object) -> DaemonHealth:
        if isinstance(self.answer, DaemonError):
            raise self.answer
        return self.answer


class Revision:
    answer: asyncio.Future[None] | OSError | None = None

    async def poll(self) -> None:
        if isinstance(self.answer, OSError):
            raise self.answer
        if self.answer is not None:
            await self.answer


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def revision() -> Revision:
    return Revision()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.hear(Synced(epoch=uuid4(), revision=0, relist=True))
    return registry


@pytest.fixture
def health(client: Client, registry: Registry, revision: Revision) -> FacadeHealth:
    return FacadeHealth(cast("Any", client), registry, cast("Any", revision))


async def told(health: FacadeHealth) -> tuple[int, Any]:
    response = await health.get(make_mocked_request("GET", "/healthz"))
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return response.status, msgspec.json.decode(response.body)


def failing(health: FacadeHealth) -> list[str]:
    return [one.part for one in health.failing()]


async def test_well(health: FacadeHealth) -> None:
    await health.check_daemon()
    await health.check_database()
    assert await told(health) == (200, {"data": {"status": "ok"}})


async def test_the_daemon_is_lost(health: FacadeHealth, registry: Registry) -> None:
    registry.hear(DaemonError(ErrorCode.UNREACHABLE, "cannot reach /run/secret.sock"))
    assert await told(health) == (
        503,
        {"data": {"status": "degraded", "failing": [{"part": "daemon", "detail": "The daemon does not answer."}]}},
    )


async def test_the_daemon_does_not_answer_calls(health: FacadeHealth, client: Client) -> None:
    client.answer = DaemonError(ErrorCode.UNREACHABLE, "gone")
    await health.check_daemon()
    assert failing(health) == ["daemon"]
    del client.answer
    await health.check_daemon()
    assert failing(health) == []


async def test_the_recovery_loop_is_dead(health: FacadeHealth, registry: Registry) -> None:
    registry.hear(Heartbeat(revision=0, recovery_alive=False))
    assert failing(health) == ["recovery"]
    registry.hear(Heartbeat(revision=0, recovery_alive=True))
    assert failing(health) == []


async def test_parts_of_the_daemon_are_named_without_its_words(
    health: FacadeHealth, client: Client, registry: Registry
) -> None:
    registry.hear(Heartbeat(revision=0, recovery_alive=False))
    client.answer = DaemonHealth(
        health=Health.DEGRADED,
        checks=[
            Check(name="recovery", health=Health.DEGRADED, message="dead"),
            Check(name="gpus", health=Health.OK),
            Check(name="isolation", health=Health.DEGRADED, message="cannot write /proc/secret"),
        ],
    )
    await health.check_daemon()
    assert failing(health) == ["recovery", "isolation"]
    assert "secret" not in repr(await told(health))


async def test_degraded_without_a_reason_is_degraded(health: FacadeHealth, client: Client) -> None:
    client.answer = DaemonHealth(health=Health.DEGRADED, checks=[])
    await health.check_daemon()
    assert failing(health) == ["daemon"]


async def test_the_database_is_lost_and_found(health: FacadeHealth, revision: Revision) -> None:
    revision.answer = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        await health.check_database()
    assert failing(health) == ["database"]
    revision.answer = None
    await health.check_database()
    assert failing(health) == []


async def test_a_check_can_be_cancelled_in_the_moment_in_which_it_ends(
    health: FacadeHealth, revision: Revision
) -> None:
    """Otherwise the recurring check would survive its own end, and the facade would never stop."""
    revision.answer = answered = asyncio.get_running_loop().create_future()
    checking = asyncio.create_task(every(3600, "database", health.check_database))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answered.set_result(None)
    await asyncio.sleep(0)
    checking.cancel()
    done, _ = await asyncio.wait([checking], timeout=10)
    assert done == {checking}
