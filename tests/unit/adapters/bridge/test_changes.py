"""Owns what counts as a change to the host's interfaces, and that none is lost to a timeout, an overflow or a failure."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from medforged.adapters.bridge.changes import LinkChanges

pytestmark = pytest.mark.unit

# How messages of the kernel's group of links began on Linux 6.18 (x86-64), 52 bytes each: what happened, to what.
RECORDED = {
    "bridge seen": "60070000100000000000000000000000000001000200000002100000ffffffff0e0003006d662d7075626c696300000008000d00",
    "bridge gone": "34040000110000000000000000000000000001000200000002100000ffffffff0e0003006d662d7075626c696300000008000d00",
    "port seen": "d8050000100000000000000000000000000001000400000002100000ffffffff0a0003006d6670306e00000008000d00e8030000",
    "port gone": "ac020000110000000000000000000000000001000400000002100000ffffffff0a0003006d6670306e00000008000d00e8030000",
    "flag of port": "a8010000100000000000000000000000070001000400000002100000000000000a0003006d6670306e00000008000a0002000000",
    "port left": "58000000110000000000000000000000070001000400000002100000000000000a0003006d6670306e00000008000a0002000000",
    "other seen": "d8050000100000000000000000000000000001000300000002100000ffffffff0a0003006d6670306600000008000d00e8030000",
}
OF_THE_PORT = [what for what in RECORDED if "port" in what]
LONG_SECONDS = 60.0
SHORT_SECONDS = 0.02


class Ear(socket.socket):
    """One end of a pair of sockets in place of the kernel's; errors can be put before what it reads."""

    errors: list[int]

    def recv_into(self, *arguments: object) -> int:
        if self.errors:
            raise OSError(self.errors.pop(0), "so the test says")
        return super().recv_into(*arguments)  # type: ignore[arg-type]  # whatever it was called with


class Kernel:
    """Opens ears, refuses to as often as told, and says things to the last one."""

    def __init__(self) -> None:
        self.refusals = 0
        self.opened = 0
        self.ear = Ear()
        self.mouth = socket.socket()

    def subscribed(self) -> socket.socket:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EPERM, "Operation not permitted")
        self.close()
        self.mouth, heard = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear = Ear(fileno=heard.detach())
        self.ear.errors = []
        self.ear.setblocking(False)
        self.opened += 1
        return self.ear

    def say(self, *whats: str) -> None:
        for what in whats:
            self.mouth.send(bytes.fromhex(RECORDED[what]) + bytes(1000))

    def close(self) -> None:
        self.ear.close()
        self.mouth.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


@pytest.fixture
async def changes(kernel: Kernel) -> LinkChanges:
    """Nothing has changed since the last look."""
    made = LinkChanges(kernel.subscribed)
    assert await made.wait(LONG_SECONDS)
    return made


async def waiting(changes: LinkChanges) -> asyncio.Task[bool]:
    """A call that has found nothing yet."""
    task = asyncio.create_task(changes.wait(LONG_SECONDS))
    await turn()
    assert not task.done()
    return task


async def turn() -> None:
    """Let everybody go on, and the loop look at its sockets."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_came_before_the_first_call_is_not_known(kernel: Kernel) -> None:
    changes = LinkChanges(kernel.subscribed)

    assert [await changes.wait(SHORT_SECONDS) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("what", RECORDED)
async def test_every_message_is_a_change(changes: LinkChanges, kernel: Kernel, what: str) -> None:
    waits = await waiting(changes)
    kernel.say(what)

    assert await waits
    assert not await changes.wait(SHORT_SECONDS)


async def test_what_comes_between_two_calls_is_kept_and_is_one_change(changes: LinkChanges, kernel: Kernel) -> None:
    kernel.say(*RECORDED)

    assert await changes.wait(LONG_SECONDS)
    assert not await changes.wait(SHORT_SECONDS)


async def test_a_cancelled_call_takes_nothing_along(changes: LinkChanges, kernel: Kernel) -> None:
    waits = await waiting(changes)
    kernel.say("port seen")
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits

    assert await changes.wait(LONG_SECONDS)


async def test_a_timeout_takes_nothing_along(changes: LinkChanges, kernel: Kernel) -> None:
    """As often as both come at the same moment, the change is told by this call or by the next."""
    for _ in range(50):
        waits = asyncio.create_task(changes.wait(0.001))
        await asyncio.sleep(0.001)
        kernel.say("port seen")

        assert [await waits, await changes.wait(SHORT_SECONDS)].count(True) == 1


async def test_an_overflow_is_a_change(changes: LinkChanges, kernel: Kernel) -> None:
    kernel.ear.errors = [errno.ENOBUFS]

    assert await changes.wait(LONG_SECONDS)
    assert not await changes.wait(SHORT_SECONDS)
    assert kernel.opened == 1


async def test_messages_that_never_end_are_a_change_and_hold_nothing_up(changes: LinkChanges, kernel: Kernel) -> None:
    read = 0

    def endless(*_arguments: object) -> int:
        nonlocal read
        read += 1
        return 0

    kernel.ear.recv_into = endless  # type: ignore[method-assign]  # a kernel that is faster than we are
    assert await changes.wait(LONG_SECONDS)
    assert read <= 1000


async def test_without_a_socket_nothing_changes_and_it_is_told_once(kernel: Kernel) -> None:
    kernel.refusals = 3
    with capture_logs() as logs:
        changes = LinkChanges(kernel.subscribed)
        heard = [await changes.wait(SHORT_SECONDS) for _ in range(5)]

    assert heard == [False, False, False, True, False]
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("isolation.unwatched", "warning")
    assert line["error"].startswith("cannot watch the host's interfaces: Operation not permitted; ")


async def test_a_socket_that_fails_is_opened_anew(changes: LinkChanges, kernel: Kernel) -> None:
    with capture_logs() as logs:
        kernel.ear.errors = [errno.EBADF]
        kernel.say("port seen")
        assert not await changes.wait(SHORT_SECONDS)
        assert kernel.ear.fileno() == -1
        # What came meanwhile is not known.
        assert await changes.wait(SHORT_SECONDS)
        assert not await changes.wait(SHORT_SECONDS)
        kernel.say("port seen")
        assert await changes.wait(LONG_SECONDS)
        kernel.ear.errors = [errno.EBADF]
        kernel.say("port seen")
        assert not await changes.wait(SHORT_SECONDS)

    assert kernel.opened == 2
    assert [line["event"] for line in logs] == ["isolation.unwatched"] * 2


@pytest.mark.parametrize("what", [*OF_THE_PORT, "bridge seen"])
async def test_what_we_do_ourselves_is_no_change(changes: LinkChanges, kernel: Kernel, what: str) -> None:
    with changes.own("mf-public", ["mfp0n"]):
        kernel.say(what)
        assert not await changes.wait(SHORT_SECONDS)
        waits = await waiting(changes)
        kernel.say(what)
        await turn()
    await turn()

    assert not waits.done()
    waits.cancel()
    await asyncio.wait({waits})


@pytest.mark.parametrize("what", ["other seen", "bridge gone"])
async def test_what_others_do_meanwhile_is_one(changes: LinkChanges, kernel: Kernel, what: str) -> None:
    with changes.own("mf-public", ["mfp0n"]):
        waits = await waiting(changes)
        kernel.say("port seen", what, "port seen")

    assert await waits
    assert not await changes.wait(SHORT_SECONDS)


async def test_a_port_of_our_own_is_none_any_more_afterwards(changes: LinkChanges, kernel: Kernel) -> None:
    with changes.own("mf-public", ["mfp0n"]):
        pass
    kernel.say("port seen")

    assert await changes.wait(LONG_SECONDS)


async def test_the_bridge_may_say_so_late(changes: LinkChanges, kernel: Kernel) -> None:
    with changes.own("mf-public", ["mfp0n"]):
        pass
    kernel.say("bridge seen")

    assert not await changes.wait(SHORT_SECONDS)


@pytest.mark.parametrize("ahead", [(), ("other seen",)])
async def test_a_bridge_made_anew_is_a_change(changes: LinkChanges, kernel: Kernel, ahead: tuple[str, ...]) -> None:
    """Also when the old one went during a probe, or right after it."""
    with changes.own("mf-public", ["mfp0n"]):
        kernel.say(*ahead, "bridge gone")
    assert await changes.wait(LONG_SECONDS)
    kernel.say("bridge seen")
    assert await changes.wait(LONG_SECONDS)

    with changes.own("mf-public", ["mfp0n"]):
        pass
    kernel.say(*ahead, "bridge gone")
    assert await changes.wait(LONG_SECONDS)
    kernel.say("bridge seen")
    assert await changes.wait(LONG_SECONDS)


async def test_what_an_overflow_has_swallowed_may_have_been_the_bridge(changes: LinkChanges, kernel: Kernel) -> None:
    with changes.own("mf-public", ["mfp0n"]):
        pass
    kernel.ear.errors = [errno.ENOBUFS]
    assert await changes.wait(LONG_SECONDS)
    kernel.say("bridge seen")

    assert await changes.wait(LONG_SECONDS)


async def test_what_fails_in_between_is_looked_at(changes: LinkChanges) -> None:
    waits = await waiting(changes)
    with pytest.raises(LookupError), changes.own("mf-public", ["mfp0n"]):
        raise LookupError

    assert await waits


@pytest.mark.parametrize("act", [lambda changes: None, lambda changes: changes.close()], ids=["open", "closed before"])
async def test_closing_gives_up_the_socket(
    changes: LinkChanges, kernel: Kernel, act: Callable[[LinkChanges], None]
) -> None:
    act(changes)
    changes.close()

    assert kernel.ear.fileno() == -1
    assert not await changes.wait(SHORT_SECONDS)
    assert kernel.opened == 1


async def test_closing_while_somebody_waits(changes: LinkChanges, kernel: Kernel) -> None:
    waits = asyncio.create_task(changes.wait(SHORT_SECONDS))
    await turn()
    changes.close()

    assert not await waits
    assert kernel.ear.fileno() == -1
