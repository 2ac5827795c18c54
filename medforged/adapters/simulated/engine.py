"""Owns the engine of a simulated host: which containers and networks there are, and what happens to them by themselves.

The methods without an underscore are for tests and demonstrations, in the daemon's process or, over a host with a
folder, in any other.
"""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address, IPv4Network

from msgspec.structs import replace

from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.items import ContainerItem, NetworkItem, PartItem
from medforged.domain.containers import ContainerState, Endpoint, SessionNetwork
from medforged.domain.errors import ContainerError, ContainerMissing

__all__ = ["KILLED", "SimulatedEngine"]

KILLED = 137
# Above the kernel's largest process id (PID_MAX_LIMIT, 2^22): no mistake can ever signal a real process. So many that a
# process that a GPU still shows never shares its id with a new one.
_FIRST_PROCESS_ID, _PROCESS_IDS = (1 << 22) + 1, 1 << 30
_ITEM = "containers"


class SimulatedEngine:
    """Containers and networks on a host. Raises ContainerError and ContainerMissing."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def begin_outage(self, reason: str = "the container engine does not answer (simulated)") -> None:
        """Let every call raise ContainerUnavailable, and end every subscription so."""
        self._host.engine.put(_ITEM, replace(self._engine(), failure=reason))

    def end_outage(self) -> None:
        self._host.engine.put(_ITEM, replace(self._engine(), failure=None))

    def restart_engine(self, *, exit_code: int = KILLED) -> None:
        """As a restart of Docker: subscriptions end, running containers die, and nobody is told; networks stay."""
        with self._host.engine.exclusive():
            self._host.engine.put(_ITEM, replace(self._engine(), restarts=self._engine().restarts + 1))
            for name, found in self._host.containers.items().items():
                if found.state is ContainerState.RUNNING and not found.foreign:
                    self.die(name, exit_code=exit_code)

    def die(self, name: str, *, exit_code: int = 1, oom_killed: bool = False) -> None:
        """Let a running container end by itself. Raises ContainerMissing."""
        with self._host.containers.exclusive():
            self._host.containers.put(
                name,
                replace(
                    self._existing(name),
                    state=ContainerState.EXITED,
                    exit_code=exit_code,
                    oom_killed=oom_killed,
                    address=None,
                    process_id=None,
                    dies_after_looks=None,
                ),
            )

    def die_after_looks(self, name: str, looks: int) -> None:
        """Let a running container be found dead at the look after this many more. Raises ContainerMissing."""
        with self._host.containers.exclusive():
            self._host.containers.put(name, replace(self._existing(name), dies_after_looks=looks))

    def vanish(self, name: str) -> None:
        """Let a container be removed behind the daemon's back. Raises ContainerMissing."""
        with self._host.containers.exclusive():
            self._existing(name)
            self._host.containers.remove(name)

    def occupy(self, name: str) -> None:
        """Let somebody else have a container of this name."""
        foreign = ContainerItem(name=name, id=secrets.token_hex(32), state=ContainerState.RUNNING, foreign=True)
        self._host.containers.put(name, foreign)

    def say(self, name: str, text: str) -> None:
        """Let a container write to its output. Raises ContainerMissing."""
        with self._host.containers.exclusive():
            found = self._existing(name)
            output = (*found.output, *text.splitlines(keepends=True))
            self._host.containers.put(name, replace(found, output=output))

    def _engine(self) -> PartItem:
        return self._host.engine.get(_ITEM) or PartItem()

    def _run(self, found: ContainerItem) -> ContainerItem:
        network = self._host.networks.get(found.network) if found.network else None
        if network is None:
            raise ContainerError(f"cannot start container {found.name}: its network does not exist; restart medforged")
        started = replace(
            found,
            state=ContainerState.RUNNING,
            address=str(self._free_address(network)),
            process_id=_FIRST_PROCESS_ID + secrets.randbelow(_PROCESS_IDS),
            exit_code=None,
            oom_killed=False,
        )
        self._host.containers.put(found.name, started)
        return started

    def _look(self, found: ContainerItem) -> ContainerItem:
        if found.state is not ContainerState.RUNNING or found.dies_after_looks is None:
            return found
        if found.dies_after_looks <= 0:
            self.die(found.name)
        else:
            self.die_after_looks(found.name, found.dies_after_looks - 1)
        return self._existing(found.name)

    def _own(self, name: str) -> ContainerItem | None:
        found = self._host.containers.get(name)
        if found is not None and found.foreign:
            raise ContainerError(
                f"cannot touch container {name}: it was not made by this installation; remove or rename it"
            )
        return found

    def _existing(self, name: str) -> ContainerItem:
        found = self._own(name)
        if found is None:
            raise ContainerMissing(f"cannot find container {name}: it does not exist")
        return found

    def _running(self, network: str) -> list[ContainerItem]:
        return [
            found
            for found in self._host.containers.items().values()
            if found.network == network and found.state is ContainerState.RUNNING and not found.foreign
        ]

    def _free_address(self, network: NetworkItem) -> IPv4Address:
        subnet = IPv4Network(network.subnet)
        taken = {found.address for found in self._running(network.name)}
        taken |= {str(subnet.network_address), str(subnet.broadcast_address), network.gateway}
        for address in IPv4Network(network.dynamic_range):
            if str(address) not in taken:
                return address
        raise ContainerError(
            f"cannot start a container: every address of network {network.name} is in use; stop sessions, or "
            "configure a larger range"
        )

    def _network(self, name: str) -> SessionNetwork:
        found = self._host.networks.get(name)
        if found is None:
            raise ContainerMissing(f"cannot read network {name}: it does not exist; restart medforged, which makes it")
        endpoints = tuple(
            Endpoint(running.name, IPv4Address(running.address), running.process_id)
            for running in self._running(name)
            if running.address is not None and running.process_id is not None
        )
        return SessionNetwork(name, found.bridge, IPv4Network(found.subnet), IPv4Address(found.gateway), endpoints)
