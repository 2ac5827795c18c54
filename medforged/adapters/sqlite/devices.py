"""Owns the table of GPUs: what is read and written within somebody else's transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from medforged.adapters.sqlite.schema import gpus
from medforged.domain.errors import GpuNotFound
from medforged.domain.gpus import Gpu, GpuDevice, GpuHealth, GpuInventory

__all__ = ["every_gpu", "one_gpu", "quarantine", "record", "set_values"]

_ABSENT = "the driver does not report this GPU any more; check the host, then `medforgectl gpus`"


async def every_gpu(connection: AsyncConnection) -> tuple[Gpu, ...]:
    """All known GPUs, ordered by id."""
    return tuple(_gpu(row) for row in await connection.execute(select(gpus).order_by(gpus.c.id)))


async def one_gpu(connection: AsyncConnection, gpu_id: int) -> Gpu:
    """Raises GpuNotFound."""
    row = (await connection.execute(select(gpus).where(gpus.c.id == gpu_id))).one_or_none()
    if row is None:
        raise GpuNotFound(f"cannot find GPU {gpu_id}: no GPU has this id; see `medforgectl gpus`")
    return _gpu(row)


async def record(connection: AsyncConnection, inventory: GpuInventory) -> None:
    """Bring the table in line with an inventory; what is not in it becomes unhealthy."""
    known = {row.uuid: row for row in await connection.execute(select(gpus))}
    present = {device.uuid: device for device in inventory.devices}
    for uuid, device in present.items():
        values = _values(device)
        if uuid not in known:
            await connection.execute(
                insert(gpus).values(id=await _unused_id(connection, device), enabled=True, **values)
            )
        elif any(getattr(known[uuid], name) != value for name, value in values.items()):
            await connection.execute(update(gpus).where(gpus.c.uuid == uuid).values(values))
    absent = [uuid for uuid, row in known.items() if uuid not in present and (row.healthy or row.reason != _ABSENT)]
    if absent:
        await connection.execute(update(gpus).where(gpus.c.uuid.in_(absent)).values(healthy=False, reason=_ABSENT))


async def set_values(connection: AsyncConnection, gpu_id: int, **values: Any) -> Gpu:
    """Write columns of one GPU and return it. Raises GpuNotFound."""
    await connection.execute(update(gpus).where(gpus.c.id == gpu_id).values(values))
    return await one_gpu(connection, gpu_id)


async def quarantine(connection: AsyncConnection, gpu_id: int, reason: str, session_id: UUID) -> None:
    await set_values(connection, gpu_id, quarantine=reason, quarantine_session_id=session_id)


async def _unused_id(connection: AsyncConnection, device: GpuDevice) -> int:
    """The driver's index where no other device has that id yet, so that ids look like what people expect."""
    taken = set((await connection.execute(select(gpus.c.id))).scalars())
    return device.index if device.index not in taken else max(taken) + 1


def _values(device: GpuDevice) -> dict[str, Any]:
    return {
        "uuid": device.uuid,
        "device_index": device.index,
        "name": device.name,
        "pci_address": device.pci_address,
        "memory_total_bytes": device.memory_total_bytes,
        "healthy": device.fault is None,
        "reason": device.fault,
    }


def _gpu(row: Any) -> Gpu:
    return Gpu(
        id=row.id,
        uuid=row.uuid,
        index=row.device_index,
        name=row.name,
        pci_address=row.pci_address,
        memory_total_bytes=row.memory_total_bytes,
        enabled=row.enabled,
        health=GpuHealth.HEALTHY if row.healthy else GpuHealth.UNHEALTHY,
        reason=row.reason,
        quarantine=row.quarantine,
        quarantine_session_id=row.quarantine_session_id,
    )
