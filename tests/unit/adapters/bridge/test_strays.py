"""Owns which ports of a bridge are strays: what leads nowhere, and has been seen to for longer than any start takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.bridge.links import Bridge, Links, Port
from medforged.adapters.bridge.strays import StrayPorts, unexplained
from medforged.domain.containers import Endpoint, SessionNetwork

pytestmark = pytest.mark.unit

SUBNET = IPv4Network("172.28.32.0/24")


def port(name: str, namespace: int | None, *, kind: str | None = "veth") -> Port:
    return Port(int(name.strip("abcdefghijklmnopqrstuvwxyz")), name, True, True, namespace, kind)


def network(*process_ids: int) -> SessionNetwork:
    endpoints = tuple(Endpoint(f"mf-{number}", SUBNET[number], number) for number in process_ids)
    return SessionNetwork("mf", "mf0", SUBNET, SUBNET[1], endpoints)


class Asked(Links):
    """Answers from a table of namespaces by process id."""

    def __init__(self, **namespaces: int | None) -> None:
        super().__init__(None, OSError)
        self.namespaces = {int(name.strip("p")): namespace for name, namespace in namespaces.items()}
        self.questions: list[int] = []

    def namespace_of(self, process_id: int) -> int | None:
        self.questions.append(process_id)
        return self.namespaces.get(process_id)


class Bench:
    """Stray ports, on a clock and with processes of its own."""

    def __init__(self, proc: Path) -> None:
        self.now = 0.0
        self.strays = StrayPorts(30.0, lambda: self.now, proc)

    def seen(self, links: Asked, ports: Sequence[Port], attached: SessionNetwork, exempt: Collection[str] = ()) -> None:
        self.strays.note(links, Bridge(1, "mf0", "02:42:00:00:00:01", 1500, tuple(ports), ()), attached, exempt)

    def told(self, links: Any, ports: Sequence[Port], attached: SessionNetwork) -> list[str]:
        links.find_bridge = lambda _name: Bridge(1, "mf0", "02:42:00:00:00:01", 1500, tuple(ports), ())
        return [one.name for one in self.strays._look(links, attached, ())]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With three processes; 8 and 9 share a namespace."""
    for number, namespace in ((7, "seven"), (8, "eight"), (9, "eight")):
        (tmp_path / str(number) / "ns").mkdir(parents=True)
        (tmp_path / namespace).touch()
        (tmp_path / str(number) / "ns" / "net").symlink_to(tmp_path / namespace)
    (tmp_path / "sys").mkdir()
    return Bench(tmp_path)


def test_a_port_is_explained_by_the_namespace_it_leads_to() -> None:
    led, here, elsewhere = port("veth1", 0), port("veth2", None), port("veth3", 4)

    assert unexplained([led, here, elsewhere], {0}, ()) == (here, elsewhere)
    # A process that is gone has no namespace, and neither does a port that leads nowhere.
    assert unexplained([led, here], {0, None}, ()) == (here,)
    assert unexplained([led, here, elsewhere], {0}, ("veth2",)) == (elsewhere,)


def test_a_port_that_long_leads_nowhere_is_a_stray(bench: Bench) -> None:
    ports = [port("veth1", 0), port("veth2", None)]
    links = Asked(p101=0)

    assert bench.told(links, ports, network(101)) == []
    bench.now = 29.9
    assert bench.told(links, ports, network(101)) == []
    bench.now = 30.0
    assert bench.told(links, ports, network(101)) == ["veth2"]


def test_every_look_of_others_counts(bench: Bench) -> None:
    ports = [port("veth1", 0), port("veth2", None), port("veth3", 5)]
    links = Asked(p101=0)
    bench.seen(links, ports, network(101))
    bench.now = 30.0

    assert bench.told(links, ports, network(101)) == ["veth2", "veth3"]


def test_a_container_that_was_only_slow_to_start_begins_anew(bench: Bench) -> None:
    links = Asked(p101=3)
    bench.seen(links, [port("veth1", None)], network())
    bench.now = 20.0
    bench.seen(links, [port("veth1", 3)], network(101))
    bench.now = 40.0

    # Stopping: the engine has taken the other end back, and removes the port next.
    assert bench.told(links, [port("veth1", None)], network()) == []
    bench.now = 69.9
    assert bench.told(links, [port("veth1", None)], network()) == []


def test_another_interface_of_the_same_name_begins_anew(bench: Bench) -> None:
    bench.seen(Asked(), [Port(4, "veth", True, True, None, "veth")], network())
    bench.now = 60.0

    assert bench.told(Asked(), [Port(5, "veth", True, True, None, "veth")], network()) == []


@pytest.mark.parametrize("processes", [{"p7": 6}, {"p8": 6, "p9": 6}])
def test_wherever_a_process_lives_a_port_is_in_use(bench: Bench, processes: dict[str, int]) -> None:
    """The engine's answer is older than the port, or the container is somebody else's."""
    ports = [port("veth1", 6)]
    links = Asked(**processes)
    bench.seen(links, ports, network())
    bench.now = 60.0

    assert bench.told(links, ports, network()) == []
    links.namespaces = {}
    bench.now = 61.0
    assert bench.told(links, ports, network()) == []
    bench.now = 91.0
    assert bench.told(links, ports, network()) == ["veth1"]


def test_a_process_per_namespace_is_asked_for_and_those_that_cannot_be_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    links = Asked(p10=6)

    assert bench.told(links, [port("veth1", 6)], network()) == []
    assert sorted(links.questions) in ([7, 8, 10], [7, 9, 10])


def test_processes_are_asked_for_only_when_they_could_explain_anything(bench: Bench) -> None:
    links = Asked(p101=0)
    bench.told(links, [port("veth1", 0), port("veth2", None)], network(101))

    assert links.questions == [101]


def test_the_same_sight_asks_nothing_again(bench: Bench) -> None:
    links, ports = Asked(p101=0, p102=1), [port("veth1", 0), port("veth2", 1)]
    for _ in range(5):
        bench.seen(links, ports, network(101, 102))
    assert links.questions == [101, 102]

    bench.seen(links, ports, network(101))
    bench.seen(links, ports[:1], network(101))
    assert links.questions == [101, 102, 101, 101]


def test_ports_of_a_probe_are_not_looked_at(bench: Bench) -> None:
    bench.seen(Asked(), [port("mfp1", 9)], network(), ("mfp1",))
    bench.now = 60.0

    assert bench.told(Asked(), [port("mfp1", 9)], network()) == []
