"""Owns what an engine is asked for a diagnosis alone: how it is set up, and whether the sessions' network is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from docker.errors import NotFound

from medforged.adapters.docker.answers import whole
from medforged.adapters.docker.networks import differences
from medforged.domain.containers import NetworkSpec

__all__ = ["Survey", "network_problems", "survey"]


@dataclass(frozen=True, slots=True)
class Survey:
    """How the engine is set up; `cdi_directories` is empty for an engine without CDI."""

    version: str
    cgroup_driver: str
    cgroup_version: str
    default_runtime: str
    cdi_directories: tuple[str, ...]


def survey(client: Any) -> Survey:
    """Ask the engine about itself. Raises ContainerError, and what docker-py raises."""
    info = whole(client.info(), "itself")
    return Survey(
        version=str(info.get("ServerVersion")),
        cgroup_driver=str(info.get("CgroupDriver")),
        cgroup_version=str(info.get("CgroupVersion")),
        default_runtime=str(info.get("DefaultRuntime")),
        cdi_directories=tuple(str(directory) for directory in info.get("CDISpecDirs") or ()),
    )


def network_problems(client: Any, spec: NetworkSpec) -> tuple[str, ...] | None:
    """What about the network is not as it has to be; None where there is none. Raises as `survey`."""
    try:
        answer = whole(client.inspect_network(spec.name), f"network {spec.name}")
    except NotFound:
        return None
    return differences(spec, answer)
