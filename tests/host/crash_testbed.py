"""Owns the real testbed: what an installation has on the engine, in the pool and in this network namespace, seen from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import UUID

from medforged.adapters.clock import SystemClock
from medforged.adapters.docker.labels import IMAGE, INSTANCE, SESSION, SLUG, session_id
from medforged.adapters.iptables.rules import chain_names, jump_label
from medforged.adapters.zfs.detect import command_store
from medforged.config import Settings
from medforged.domain.containers import container_name
from medforged.domain.workspaces import WorkspaceKey
from tests.crash.testbed import gpu_processes
from tests.crash.world import NOBODY, Container, Dataset, World, read_devices, read_records
from tests.host.zfs_pool import TURNS

__all__ = ["RealTestbed"]

_FAMILIES = ("iptables-legacy", "ip6tables-legacy")
_FORMER = "former"
_SPARE = "nobodys2"
# What the engine may take from a port to the running container; those of the tests take a fraction of a second.
_START_SECONDS = 10.0
_PAUSE_SECONDS = 0.05
_Listed: TypeAlias = tuple[str, str, UUID | None, bool, int | None]


class RealTestbed:
    """Of the installation with these settings. The process has to be in the network namespace of its engine."""

    pace = 5.0
    patience_seconds = 30.0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = Path(settings.daemon.state_directory)
        self._instance = settings.daemon.instance
        self._mount_root = Path(settings.workspaces.mount_root)
        self._root = f"{settings.workspaces.pool}/{settings.workspaces.root}"
        self._engine = _Engine(Path(settings.containers.docker_socket))
        # A container's port has the same number for as long as it runs.
        self._ports: dict[int, int | None] = {}

    def look(self) -> World:
        listed, ports, owned = self._look_at_ports()
        rules, chains = self._rules()
        return World(
            records=read_records(self.directory),
            devices=read_devices(self.directory, gpu_processes(self.directory)),
            containers=tuple(
                Container(name, identity, session, running=running, isolated=ports.get(port or 0, ("", False))[1])
                for name, identity, session, running, port in listed
            ),
            datasets=tuple(self._datasets()),
            rules=rules,
            strays=(*chains, *(name for port, (name, _) in ports.items() if port not in owned)),
        )

    def _look_at_ports(self) -> tuple[list[_Listed], dict[int, tuple[str, bool]], set[int | None]]:
        """The containers, the bridge's ports, and which of those the containers explain.

        The engine makes a port before the container runs, and starts it to the end although the daemon that asked has been
        killed: a port is looked at again until such a start has come to its end.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            listed = list(self._containers())
            ports = self._bridge_ports()
            owned = {port for *_, port in listed}
            if ports.keys() <= owned or time.monotonic() > deadline:
                return listed, ports, owned
            time.sleep(_PAUSE_SECONDS)

    def describe(self) -> str:
        parts = [
            json.dumps(self._engine.ask("GET", self._listing()), indent=1),
            _output("zfs", "list", "-H", "-r", "-t", "all", "-o", "name,mountpoint,mounted", self._root),
            _output("ip", "-detail", "-oneline", "link", "show", "master", self.settings.network.bridge),
            *(_output(family, "-w", "-S") for family in _FAMILIES),
            *map(str, read_records(self.directory)),
            *map(str, read_devices(self.directory, gpu_processes(self.directory))),
        ]
        return "\n".join(parts)

    def clear(self) -> None:
        """As the port says. A dataset that is still busy is left to the end of its pool: it belongs to nobody then."""
        for found in self._engine.ask("GET", self._listing()):
            self.remove_container(found["Id"])
        for dataset in _output("zfs", "list", "-H", "-d", "1", "-o", "name", self._root).splitlines()[1:]:
            _output(*TURNS, "zfs", "destroy", "-r", dataset)
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill_container(self, name: str) -> None:
        self._engine.ask("POST", f"/containers/{name}/kill")

    def remove_container(self, name: str) -> None:
        self._engine.ask("DELETE", f"/containers/{name}?force=1&v=1")

    def restart_engine(self) -> None:
        """Whoever called the drills' engine into being ends it too. Raises AssertionError."""
        raise AssertionError("the engine is not this process's to restart: leave such a scenario out")

    async def litter(self) -> None:
        """As the port says; a port of the bridge would have to be seen for half a minute to count as a stray."""
        self._litter_container()
        store = command_store(
            self.settings.workspaces.pool,
            SystemClock(),
            root=self.settings.workspaces.root,
            mount_root=self._mount_root,
        )
        empty, used = (WorkspaceKey(NOBODY, UUID(int=number, version=4)) for number in (7, 8))
        await store.create(empty, None)
        ((await store.create(used, None)).path / "file").write_text("nobody's")
        chain = chain_names(self._instance, _FORMER)["FORWARD"]
        for family in _FAMILIES:
            if chain not in _output(family, "-w", "-S"):
                comment = ("-m", "comment", "--comment", jump_label(self._instance, _FORMER))
                _output(family, "-w", "-N", chain)
                _output(family, "-w", "-A", "FORWARD", *comment, "-j", chain)

    def _litter_container(self) -> None:
        image = self.settings.packs.default_image.rpartition("@")[2]
        labels = {INSTANCE: self._instance, SESSION: str(NOBODY), SLUG: _SPARE, IMAGE: image}
        name = container_name(_SPARE)
        with contextlib.suppress(_Refused):
            self.remove_container(name)
        self._engine.ask("POST", f"/containers/create?name={name}", {"Image": image, "Labels": labels})

    def _listing(self) -> str:
        filters = quote(json.dumps({"label": [f"{INSTANCE}={self._instance}"]}))
        return f"/containers/json?all=1&filters={filters}"

    def _containers(self) -> Iterator[_Listed]:
        """Name, id, session, whether it runs, and the number of its port on the bridge."""
        for found in self._engine.ask("GET", self._listing()):
            running = found["State"] == "running"
            port = self._port(found["Id"]) if running else None
            yield found["Names"][0].removeprefix("/"), found["Id"], session_id(found["Labels"]), running, port

    def _port(self, identity: str) -> int | None:
        try:
            process = int(self._engine.ask("GET", f"/containers/{identity}/json")["State"]["Pid"])
        except _Refused:
            return None
        if self._ports.get(process) is None:
            told = _output("nsenter", f"--net=/proc/{process}/ns/net", "ip", "-json", "link", "show", "eth0")
            self._ports[process] = json.loads(told)[0]["link_index"] if told else None
        return self._ports[process]

    def _bridge_ports(self) -> dict[int, tuple[str, bool]]:
        """Name and flag of each of the bridge's ports by its number."""
        told = _output("ip", "-json", "-detail", "link", "show", "master", self.settings.network.bridge)
        return {
            link["ifindex"]: (link["ifname"], link["linkinfo"]["info_slave_data"]["isolated"])
            for link in json.loads(told or "[]")
            if "info_slave_data" in link.get("linkinfo", {})
        }

    def _rules(self) -> tuple[bool, list[str]]:
        """Whether the network's chains are there with a jump to each, and chains of networks that there are not."""
        whole, strays = True, set[str]()
        chains = chain_names(self._instance, self.settings.network.name)
        comment = jump_label(self._instance, "").strip()
        for family in _FAMILIES:
            rules = _output(family, "-w", "-S").splitlines()
            for hook, chain in chains.items():
                jumps = sum(rule.startswith(f"-A {hook} ") and f"-j {chain}" in rule for rule in rules)
                whole = whole and f"-N {chain}" in rules and jumps == 1
            strays |= {rule.split()[-1] for rule in rules if f'"{comment} ' in rule} - set(chains.values())
        return whole, sorted(strays)

    def _datasets(self) -> Iterator[Dataset]:
        """Those that are called as a session's is."""
        mounted = {line.split()[0] for line in Path("/proc/mounts").read_text().splitlines()}
        names = _output("zfs", "list", "-H", "-r", "-t", "all", "-s", "creation", "-o", "name", self._root).splitlines()
        for name in names:
            relative = name.removeprefix(f"{self._root}/")
            if "@" in name or relative.count("/") != 1:
                continue
            yield Dataset(
                name=name,
                session_id=UUID(relative.partition("/")[2]),
                snapshots=tuple(found.partition("@")[2] for found in names if found.startswith(f"{name}@")),
                files=any((self._mount_root / relative).iterdir()) if name in mounted else False,
                mounted=name in mounted,
            )


class _Refused(Exception):
    """The engine's answer is not one of success."""


class _Engine:
    """The engine's API, without a client of the product's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, target: str, body: object = None) -> Any:
        """The answer's JSON. Raises _Refused."""
        connection = _UnixConnection(self._path)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, target, sent, {"Content-Type": "application/json"} if sent else {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise _Refused(f"{method} {target}: {answer.status} {content.decode()}")
        return json.loads(content) if content else None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def _output(*argv: str) -> str:
    """What a program prints. What it looks at may be gone before it has: then that is not in it."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
