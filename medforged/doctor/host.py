"""Owns the order in which a host is examined: what others stand on comes first."""

from __future__ import annotations

from medforged.config import network_spec
from medforged.contract.doctor import Examination
from medforged.doctor.devices import examine_devices
from medforged.doctor.engine import examine_engine
from medforged.doctor.kernel import examine_clock, examine_kernel
from medforged.doctor.programs import examine_programs
from medforged.doctor.settings import examine_settings
from medforged.doctor.storage import examine_storage

__all__ = ["examine"]


async def examine() -> list[Examination]:
    """Every precondition of this host. Changes nothing."""
    settings, found = examine_settings()
    engine, told = await examine_engine(settings, network_spec(settings.network))
    return [
        *found,
        *told,
        *await examine_storage(settings),
        *await examine_devices(settings, engine),
        *examine_kernel(settings),
        examine_clock(),
        *await examine_programs(settings),
    ]
