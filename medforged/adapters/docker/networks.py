"""Owns the sessions' network in the engine: what it has to be, and what it is.

Traffic between the network's own containers is left on (`enable_icc`): the engine's switch for it drops every packet
from the bridge to itself, and so would cut the proxy off from the sessions as well. Who may speak to whom is decided by
the daemon's own rules, which know the proxy's address.
"""

from __future__ import annotations

import time
from ipaddress import AddressValueError, IPv4Interface, IPv4Network, NetmaskValueError
from typing import Any

from docker.errors import APIError, NotFound

from medforged.adapters.docker.answers import Answer, part, process_id, whole
from medforged.adapters.docker.failures import explanation, is_absent
from medforged.adapters.docker.labels import INSTANCE
from medforged.domain.containers import Endpoint, NetworkSpec, SessionNetwork
from medforged.domain.errors import ContainerError, ContainerMissing

__all__ = ["EngineNetworks", "differences", "network_request"]

_BRIDGE = "com.docker.network.bridge.name"
_ICC = "com.docker.network.bridge.enable_icc"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_IPV6 = "com.docker.network.enable_ipv6"  # for engines whose configured default is to have it; others ignore it
_MAX_INTERFACE_NAME = 15
_CREATION_ATTEMPTS, _CREATION_PAUSE_SECONDS = 20, 0.1


def network_request(spec: NetworkSpec, instance: str) -> dict[str, Any]:
    """The arguments of the request that creates the network."""
    return {
        "name": spec.name,
        "driver": "bridge",
        "check_duplicate": True,
        "options": {_BRIDGE: spec.bridge, _ICC: "true", _MASQUERADE: "true", _IPV6: "false"},
        "ipam": {
            "Driver": "default",
            "Config": [
                {"Subnet": str(spec.subnet), "IPRange": str(spec.dynamic_range), "Gateway": str(spec.gateway)},
            ],
        },
        "labels": {INSTANCE: instance},
    }


def differences(spec: NetworkSpec, answer: Answer) -> tuple[str, ...]:
    """What about an existing network is not as it has to be, one phrase each; empty when all is well."""
    addresses = part(answer, "IPAM").get("Config") or [{}]
    first, options = addresses[0], part(answer, "Options")
    pairs = (
        ("driver", answer.get("Driver"), "bridge"),
        ("number of subnets", len(addresses), 1),
        ("subnet", first.get("Subnet"), str(spec.subnet)),
        ("gateway", first.get("Gateway"), str(spec.gateway)),
        # Without it the engine gives the first session the proxy's own address.
        ("address range", first.get("IPRange"), str(spec.dynamic_range)),
        ("bridge", _bridge(answer), spec.bridge),
        ("IPv6", bool(answer.get("EnableIPv6")), False),
        ("isolation from outside", bool(answer.get("Internal")), False),
        ("traffic inside (enable_icc)", options.get(_ICC, "true"), "true"),
    )
    return tuple(f"{name} is {found}, not {wanted}" for name, found, wanted in pairs if found != wanted)


class EngineNetworks:
    """Blocking calls about the network. Raises ContainerError, and what docker-py raises."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        # A container gets a new endpoint whenever it is started: the process behind one never changes.
        self._processes: dict[tuple[str, str], int] = {}

    def ensure(self, client: Any, spec: NetworkSpec) -> SessionNetwork:
        """Create the network unless it exists as it has to be."""
        if len(spec.bridge) > _MAX_INTERFACE_NAME:
            raise ContainerError(
                f"cannot create network {spec.name}: bridge name {spec.bridge!r} is longer than {_MAX_INTERFACE_NAME}"
            )
        answer = self._find(client, spec.name)
        if answer is None:
            self._create(client, spec)
            answer = self._find(client, spec.name) or {}
        wrong = differences(spec, answer)
        if wrong:
            raise ContainerError(
                f"cannot use network {spec.name}: it exists, but its {'; its '.join(wrong)}; stop what is attached to "
                f"it and remove it with `docker network rm {spec.name}`, or configure it as it is"
            )
        return self._network(client, answer)

    def read(self, client: Any, name: str) -> SessionNetwork:
        """The network as it is. Raises ContainerMissing."""
        answer = self._find(client, name)
        if answer is None:
            raise ContainerMissing(f"cannot read network {name}: it does not exist; restart medforged, which makes it")
        return self._network(client, answer)

    def remove(self, client: Any, name: str) -> None:
        """Remove the network if this installation made it and nothing is attached."""
        answer = self._find(client, name)
        if answer is None:
            return
        if part(answer, "Labels").get(INSTANCE) != self._instance:
            raise ContainerError(f"cannot remove network {name}: it was not made by this installation")
        attached = sorted(str(endpoint.get("Name")) for endpoint in part(answer, "Containers").values())
        if attached:
            raise ContainerError(f"cannot remove network {name}: {', '.join(attached)} still attached; stop them first")
        try:
            client.remove_network(name)
        except NotFound:
            return

    def _find(self, client: Any, name: str) -> Answer | None:
        try:
            answer = whole(client.inspect_network(name), f"network {name}")
        except NotFound:
            return None
        return answer if answer.get("Name") == name else None  # the engine also takes the beginning of an id

    def _create(self, client: Any, spec: NetworkSpec) -> None:
        for attempt in range(_CREATION_ATTEMPTS):
            try:
                client.create_network(**network_request(spec, self._instance))
            except APIError as error:
                if self._find(client, spec.name) is not None:
                    return  # somebody else was quicker
                if "overlap" not in explanation(error).lower():
                    raise
                overlapping = _overlapping(client, spec)
                if overlapping or attempt + 1 == _CREATION_ATTEMPTS:
                    whom = f"network {', '.join(overlapping)}" if overlapping else "an address range of the host"
                    raise ContainerError(
                        f"cannot create network {spec.name}: its subnet {spec.subnet} overlaps with {whom}; "
                        "remove that, or configure another subnet"
                    ) from error
                # The engine takes the addresses before it shows the network: somebody is about to be quicker.
                time.sleep(_CREATION_PAUSE_SECONDS)
            else:
                return

    def _network(self, client: Any, answer: Answer) -> SessionNetwork:
        name = str(answer.get("Name"))
        try:
            subnet = IPv4Network(answer["IPAM"]["Config"][0]["Subnet"])
            gateway = IPv4Interface(answer["IPAM"]["Config"][0]["Gateway"]).ip
        except (KeyError, IndexError, TypeError, AddressValueError, NetmaskValueError, ValueError) as error:
            raise ContainerError(f"cannot read network {name}: it has no IPv4 subnet and gateway") from error
        endpoints, processes = [], {}
        for container, attached in sorted(part(answer, "Containers").items()):
            key = (container, str(attached.get("EndpointID")))
            process = self._processes.get(key) or _running_process(client, container)
            if process is None or not attached.get("IPv4Address"):
                continue  # it has gone since, or is not quite there yet
            processes[key] = process
            endpoints.append(Endpoint(str(attached.get("Name")), IPv4Interface(attached["IPv4Address"]).ip, process))
        self._processes = processes
        return SessionNetwork(name, _bridge(answer), subnet, gateway, tuple(endpoints))


def _bridge(answer: Answer) -> str:
    return str(part(answer, "Options").get(_BRIDGE) or f"br-{str(answer.get('Id'))[:12]}")


def _running_process(client: Any, container: str) -> int | None:
    try:
        return process_id(client.inspect_container(container))
    except APIError as error:
        if is_absent(error, "container"):
            return None
        raise


def _overlapping(client: Any, spec: NetworkSpec) -> list[str]:
    """The networks that are in the way, for the engine does not name them."""
    return [
        f"{other.get('Name')} ({entry['Subnet']})"
        for other in client.networks()
        if other.get("Name") != spec.name  # it may have appeared since it was looked for
        for entry in part(other, "IPAM").get("Config") or ()
        if "." in entry.get("Subnet", "") and IPv4Network(entry["Subnet"]).overlaps(spec.subnet)
    ]
