"""Owns whether GPUs are there, healthy and awake, and whether a container gets its own and no other."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from medforged.adapters import nvml, process
from medforged.adapters.docker.survey import Survey
from medforged.adapters.nvml.survey import persistence_modes
from medforged.config import Settings
from medforged.contract.doctor import Examination, Kind, failed, fine, skipped, warning
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuInventory

__all__ = ["examine_devices"]

_TOOLKIT_CONFIG = Path("/etc/nvidia-container-runtime/config.toml")
# The oldest that keeps its CDI specification up to date by itself (nvidia-cdi-refresh.service).
_TOOLKIT = (1, 18)
_LISTEN_TO_IMAGES = "accept-nvidia-visible-devices-envvar-when-unprivileged"
_GENERATE = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, and enable nvidia-cdi-refresh.service"


async def examine_devices(settings: Settings, engine: Survey | None) -> list[Examination]:
    """The driver and its GPUs, then the ways into containers. `engine`: None where it did not answer."""
    if settings.adapters.gpus == "simulated":
        return [skipped(Kind.HOST, "GPUs", "GPUs are simulated here")]
    found = await nvml.detect()
    if found.driver is None:
        remedy = "install the NVIDIA driver with its libraries; without it GPUs are only simulated"
        return [failed(Kind.HOST, "GPUs", found.reason, remedy)]
    try:
        inventory = await found.driver.inventory()
    except GpuError as error:
        return [failed(Kind.HOST, "GPUs", str(error), "see `nvidia-smi` and `dmesg`")]
    finally:
        await found.driver.close()
    uuids = [device.uuid for device in inventory.devices]
    return [
        *_inventory(inventory, found.reason),
        await _persistence(uuids),
        await _toolkit(),
        _image_wishes(engine),
        *(_injection(engine, uuids) if engine else [skipped(Kind.HOST, "GPU injection", "Docker does not answer")]),
    ]


def _inventory(inventory: GpuInventory, reason: str) -> list[Examination]:
    faults = [f"{device.uuid}: {device.fault}" for device in inventory.devices if device.fault]
    found = [
        failed(Kind.HOST, "GPU", fault, "the others serve; `medforgectl gpus recheck` after the repair")
        for fault in (*faults, *inventory.faults)
    ]
    if not inventory.devices:
        return [
            *found,
            failed(Kind.HOST, "GPUs", f"the driver answers and counts no GPU ({reason})", "see `lspci` and `dmesg`"),
        ]
    return [
        *found,
        fine(Kind.HOST, "GPUs", f"{len(inventory.devices) - len(faults)} of {len(inventory.devices)} healthy"),
    ]


async def _persistence(uuids: Sequence[str]) -> Examination:
    subject = "persistence mode"
    modes = await asyncio.to_thread(persistence_modes)
    asleep = [uuid for uuid in uuids if modes.get(uuid) is False]
    if asleep:
        remedy = "enable nvidia-persistenced.service; each first use of such a GPU takes seconds"
        return warning(Kind.HOST, subject, f"is off for {', '.join(asleep)}", remedy)
    if not any(uuid in modes for uuid in uuids):
        return skipped(Kind.HOST, subject, "the driver does not tell")
    return fine(Kind.HOST, subject, "on")


async def _toolkit() -> Examination:
    subject = "NVIDIA Container Toolkit"
    install = "install nvidia-container-toolkit from NVIDIA's repository"
    try:
        told = (await process.run(("nvidia-ctk", "--version"), timeout_seconds=10)).stdout
    except process.CommandFailed as error:
        return failed(Kind.HOST, subject, f"nvidia-ctk is not there or fails: {error}", install)
    numbers = re.search(r"version (\d+)\.(\d+)", told)
    if numbers is None:
        return warning(Kind.HOST, subject, "does not tell its version", install)
    version = (int(numbers[1]), int(numbers[2]))
    if version < _TOOLKIT:
        wanted = ".".join(map(str, _TOOLKIT))
        remedy = f"upgrade to {wanted} or newer, which keeps the CDI specification up to date by itself"
        return warning(Kind.HOST, subject, f"is {version[0]}.{version[1]}", remedy)
    return fine(Kind.HOST, subject, f"{version[0]}.{version[1]}")


def _image_wishes(engine: Survey | None) -> Examination:
    """Whether an image can name GPUs for itself, with an environment variable of its own."""
    subject = _LISTEN_TO_IMAGES
    remedy = f"`nvidia-ctk config --set {_LISTEN_TO_IMAGES}=false --in-place`, then restart Docker"
    try:
        refused = tomllib.loads(_TOOLKIT_CONFIG.read_text()).get(_LISTEN_TO_IMAGES) is False
    except OSError:
        refused = False
    except tomllib.TOMLDecodeError as error:
        return failed(Kind.HOST, subject, f"{_TOOLKIT_CONFIG} is not TOML: {error}", remedy)
    if refused:
        return fine(Kind.HOST, subject, "is false: no image gives itself a GPU")
    told = "is not false: an image that runs with NVIDIA's runtime may give itself every GPU"
    if engine is not None and engine.default_runtime == "nvidia":
        return failed(Kind.HOST, subject, f"{told}, and that runtime is Docker's default", remedy)
    return warning(Kind.HOST, subject, told, remedy)


def _injection(engine: Survey, uuids: Sequence[str]) -> list[Examination]:
    subject = "GPU injection"
    if not engine.cdi_directories:
        told = f"Docker {engine.version} has no CDI: GPUs are given by NVIDIA's runtime hook"
        if engine.cgroup_driver == "systemd":
            told += ", and `systemctl daemon-reload` takes them away from running sessions"
        return [
            warning(Kind.HOST, subject, told, "upgrade to Docker 25 or newer; in Docker 25 to 27 enable features.cdi")
        ]
    text = "\n".join(_specifications(engine.cdi_directories))
    missing = [uuid for uuid in uuids if uuid not in text]
    if missing:
        told = f"no CDI specification in {' or '.join(engine.cdi_directories)} names {', '.join(missing)}"
        return [failed(Kind.HOST, subject, told, _GENERATE)]
    return [fine(Kind.HOST, subject, f"CDI, all {len(uuids)} by UUID")]


def _specifications(directories: Iterable[str]) -> list[str]:
    """The texts of the CDI specifications. Docker's own reading decides; here it is enough that a UUID is named."""
    return [
        path.read_text(errors="replace")
        for directory in directories
        for path in sorted(Path(directory).glob("*"))
        if path.suffix in (".json", ".yaml", ".yml") and path.is_file()
    ]
