"""Owns reading the kernel's answers about interfaces, from answers in the shape that pyroute2 gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from medforged.adapters.bridge.links import Bridge, Links, Port
from medforged.domain.errors import IsolationError

pytestmark = pytest.mark.unit

INTERRUPTED = 0x10


class Refused(Exception):
    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code


class Answer(dict[str, Any]):
    """A netlink message: fields by key, attributes by name."""

    def __init__(self, index: int = 0, flags: int = 0, **attributes: Any) -> None:
        super().__init__(index=index, header={"flags": flags})
        self._attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self._attributes.get(name)


class Route:
    """Answers as scripted, one list or error for each dump."""

    def __init__(self, *dumps: Sequence[Answer] | Exception) -> None:
        self.dumps = list(dumps)
        self.asked = 0
        self.changes: list[tuple[str, dict[str, int]]] = []

    def link(self, command: str, **change: int) -> Sequence[Answer]:
        if command != "dump":
            self.changes.append((command, change))
            if change["index"] in (404, 403):
                raise Refused(19 if change["index"] == 404 else 1)
            return ()
        self.asked += 1
        answer = self.dumps.pop(0) if len(self.dumps) > 1 else self.dumps[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_netnsid(self, pid: int) -> dict[str, Any]:
        if pid == 404:
            raise Refused(3)
        return {"nsid": {1: 0xFFFFFFFF, 2: -1, 3: 0}[pid]}

    def brport(self, _command: str, index: int, isolated: int) -> None:
        raise Refused(19 if index == 404 else 1)


def bridge(index: int, name: str, flags: int = 0) -> Answer:
    kind = Answer(IFLA_INFO_KIND="bridge")
    return Answer(index, flags, IFLA_IFNAME=name, IFLA_LINKINFO=kind, IFLA_ADDRESS="02:42:00:00:00:01", IFLA_MTU=1500)


def port(index: int, master: int, namespace: int | None, *, isolated: int = 0, state: int = 3) -> Answer:
    flags = Answer(IFLA_BRPORT_ISOLATED=isolated, IFLA_BRPORT_STATE=state)
    info = Answer(IFLA_INFO_KIND="veth", IFLA_INFO_SLAVE_DATA=flags)
    return Answer(
        index, IFLA_IFNAME=f"veth{index}", IFLA_MASTER=master, IFLA_LINKINFO=info, IFLA_LINK_NETNSID=namespace
    )


LINKS = (
    Answer(1, IFLA_IFNAME="lo"),
    bridge(3, "mf-public"),
    bridge(2, "docker0"),
    port(7, 3, 0, isolated=1),
    port(8, 3, None, state=0),
    port(9, 2, 4),
)


def test_a_bridge_has_its_ports_and_knows_of_the_others() -> None:
    assert Links(Route(LINKS), Refused).bridge("mf-public") == Bridge(
        3,
        "mf-public",
        "02:42:00:00:00:01",
        1500,
        (Port(7, "veth7", True, True, 0, "veth"), Port(8, "veth8", False, False, None, "veth")),
        ("docker0",),
    )


def test_a_bridge_that_is_not_there() -> None:
    links = Links(Route(LINKS), Refused)
    assert links.find_bridge("br0") is None
    assert links.find_bridge("lo") is None
    with pytest.raises(IsolationError, match="there is no bridge br0; recreate"):
        links.bridge("br0")


@pytest.mark.parametrize("broken", [(*LINKS[:3], bridge(3, "half", INTERRUPTED)), Refused(-1, "dump interrupted")])
def test_a_list_that_changed_while_it_was_read_is_read_again(broken: Sequence[Answer] | Exception) -> None:
    route = Route(broken, broken, LINKS)

    assert len(Links(route, Refused).bridge("mf-public").ports) == 2
    assert route.asked == 3


def test_a_list_that_changes_all_the_time_is_an_error() -> None:
    with pytest.raises(IsolationError, match="they change all the time"):
        Links(Route(Refused(-1, "dump interrupted")), Refused).bridge("mf-public")


def test_other_errors_are_passed_on() -> None:
    with pytest.raises(Refused):
        Links(Route(Refused(1, "Operation not permitted")), Refused).bridge("mf-public")


@pytest.mark.parametrize(("process_id", "namespace"), [(1, None), (2, None), (3, 0), (404, None)])
def test_the_namespace_of_a_process(process_id: int, namespace: int | None) -> None:
    """0 is a namespace like any other; "none assigned" is written in two ways."""
    assert Links(Route(()), Refused).namespace_of(process_id) == namespace


def test_a_port_that_went_with_its_container_is_no_error() -> None:
    links = Links(Route(()), Refused)
    assert not links.isolate(Port(404, "gone", False, True, 1, "veth"), isolated=True)
    with pytest.raises(Refused):
        links.isolate(Port(5, "there", False, True, 1, "veth"), isolated=True)


def test_a_pair_is_removed_and_what_is_somebodys_own_only_leaves_the_bridge() -> None:
    route = Route(())
    for index, kind in ((5, "veth"), (6, "tun"), (7, None)):
        Links(route, Refused).detach(Port(index, "port", True, True, None, kind))

    assert route.changes == [
        ("del", {"index": 5}),
        ("set", {"index": 6, "master": 0}),
        ("set", {"index": 7, "master": 0}),
    ]


@pytest.mark.parametrize("kind", ["veth", "tun"])
def test_what_cannot_be_detached_is_an_error_unless_it_is_gone(kind: str) -> None:
    links = Links(Route(()), Refused)
    links.detach(Port(404, "gone", True, True, None, kind))
    with pytest.raises(Refused):
        links.detach(Port(403, "kept", True, True, None, kind))
