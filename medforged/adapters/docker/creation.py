"""Owns what every session's container is made of: the translation of a ContainerSpec into the engine's request.

The same for all, and not to be asked for otherwise (contract.md section 3, step 4):

user        1000:1000 whatever the image says, so that a workspace has one owner; no supplementary groups
privileges  no capabilities, no-new-privileges, never privileged; the engine's default seccomp and AppArmor profiles
            stay, because nothing here names others
namespaces  IPC and cgroup namespaces are private by name (an engine on cgroup v1 would share the host's cgroup
            namespace otherwise); PID, UTS and user namespaces are left at their default, which is the container's own
files       the image is read-only. `/workspace` is the only bind mount; /tmp and /var/tmp are in memory and inside the
            memory limit, so that no session can fill the disk that the engine and all others live on
limits      memory without swap on top, shared memory, processes, CPUs, open files; no core dumps, see `_LIMITS`
life        an init reaps what the IDE leaves behind and passes signals on; the engine never restarts a container,
            because what happens after a death is the daemon's decision; no health check of the image runs
network     the sessions' network alone, nothing published on the host, the engine's own name service
log         5 MiB twice per container; what is older is gone
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from medforged.adapters.docker.labels import container_labels
from medforged.adapters.docker.mounts import Propagation
from medforged.domain.containers import ContainerSpec
from medforged.domain.errors import ContainerError

__all__ = ["GpuInjection", "check_name", "creation_request"]

USER = "1000:1000"
WORKSPACE = "/workspace"
_MIB = 1 << 20
_LOG = {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}
# nofile: an IDE that watches files and data loaders that share descriptors need more than the traditional 1024;
# more than the engine itself may open is refused by the kernel when the container starts.
# core: 1 is the one value for which the kernel neither writes a core file nor starts the host's core handler (0 would
# still start it): a tenant's crashed process is then never parsed by a program of root's. See fs/coredump.c in Linux.
_LIMITS = [{"Name": "core", "Soft": 1, "Hard": 1}, {"Name": "nofile", "Soft": 16384, "Hard": 16384}]
# `exec` because builds of Python packages run what they have just compiled there.
_TEMPORARY = "rw,exec,nosuid,nodev,mode=1777,size={size}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VISIBLE_GPU = "NVIDIA_VISIBLE_DEVICES"


class GpuInjection(StrEnum):
    """How the engine is asked for a GPU.

    CDI: the engine itself adds the device's nodes and libraries as its CDI specification says (Docker 25 and newer).
    HOOK: NVIDIA's runtime hook does, behind the engine's back; a reload of systemd takes the device away from a
    running container then (`Failed to initialize NVML: Unknown Error`), so it is for engines without CDI only.
    """

    CDI = "cdi"
    HOOK = "hook"


def check_name(name: str) -> str:
    """Return the name of a container or network. Raises ContainerError when it could climb in a request's path."""
    if not _NAME.fullmatch(name):
        raise ContainerError(f"cannot use {name!r} as a name in the container engine: it must match {_NAME.pattern}")
    return name


def creation_request(
    spec: ContainerSpec, *, instance: str, image_id: str, propagation: Propagation, injection: GpuInjection | None
) -> dict[str, Any]:
    """The body of the engine's request that creates a session's container.

    `injection` is ignored for a simulated GPU. Raises ContainerError for a specification that cannot be right.
    """
    return {
        "Image": image_id,
        "User": USER,
        "Hostname": check_name(spec.name),
        "Env": _environment(spec),
        "Labels": container_labels(spec, instance=instance, image_id=image_id),
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": _host(spec, propagation) | {"DeviceRequests": _devices(spec, injection)},
        "NetworkingConfig": {"EndpointsConfig": {spec.network: {}}},
    }


def _host(spec: ContainerSpec, propagation: Propagation) -> dict[str, Any]:
    if not spec.workspace.is_absolute():
        raise ContainerError(f"cannot create container {spec.name}: workspace {spec.workspace} is not an absolute path")
    limits = spec.limits
    return {
        "NetworkMode": spec.network,
        "PortBindings": {},
        "PublishAllPorts": False,
        "Privileged": False,
        "CapAdd": [],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "Init": True,
        "ReadonlyRootfs": True,
        # As a mount and not as a bind: the engine makes a missing source of a bind, owned by root.
        "Mounts": [
            {
                "Type": "bind",
                "Source": str(spec.workspace),
                "Target": WORKSPACE,
                "ReadOnly": False,
                "BindOptions": {"Propagation": propagation.value},
            }
        ],
        "Tmpfs": {
            "/tmp": _TEMPORARY.format(size=limits.memory_bytes // 2),  # noqa: S108 - a path inside the container
            "/var/tmp": _TEMPORARY.format(size=64 * _MIB),  # noqa: S108 - the same
        },
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "ShmSize": limits.shm_bytes,
        "PidsLimit": limits.pids,
        "NanoCpus": round(limits.cpus * 1e9),
        "Ulimits": _LIMITS,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _LOG,
    }


def _environment(spec: ContainerSpec) -> list[str]:
    seen: dict[str, str] = {}
    for key, value in spec.environment:
        if not _VARIABLE.fullmatch(key) or key in seen or "\0" in value:
            raise ContainerError(f"cannot create container {spec.name}: {key!r} is not a usable environment variable")
        seen[key] = value
    # Images for CUDA say `all`, and NVIDIA's runtime, where it is the engine's default, would do as they say.
    if seen.get(_VISIBLE_GPU) != spec.gpu_uuid:
        raise ContainerError(
            f"cannot create container {spec.name}: {_VISIBLE_GPU} is {seen.get(_VISIBLE_GPU)!r}, not {spec.gpu_uuid!r}"
        )
    return [f"{key}={value}" for key, value in seen.items()]


def _devices(spec: ContainerSpec, injection: GpuInjection | None) -> list[Mapping[str, Any]]:
    if spec.gpu_simulated:
        return []
    match injection:
        case GpuInjection.CDI:
            return [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={spec.gpu_uuid}"]}]
        case GpuInjection.HOOK:
            # The capabilities select the driver's libraries: CUDA and nvidia-smi, no display.
            return [{"Driver": "nvidia", "DeviceIDs": [spec.gpu_uuid], "Capabilities": [["gpu", "compute", "utility"]]}]
        case None:
            raise ContainerError(f"cannot create container {spec.name}: no way to pass a real GPU was chosen")
