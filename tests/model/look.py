"""Owns looking at a site from outside: the daemon's database and what is on the simulated host, never the daemon."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from uuid import UUID

from medforged.domain.containers import ContainerState
from tests.crash.world import Container, Dataset, World, read_devices, read_records, rows
from tests.integration.services.rig import NETWORK
from tests.model.site import Site

__all__ = ["look", "revisions", "sharing", "without"]


def look(site: Site, tolerated: frozenset[str]) -> World:
    """Everything at this moment; no time passes."""
    rules = site.host.isolation.get(NETWORK.name)
    covered = set(rules.covered or ()) if rules else set()
    folder = site.database.path.parent
    return World(
        records=read_records(folder),
        devices=read_devices(folder, _processes(site)),
        containers=tuple(
            Container(
                name=item.name,
                id=item.id,
                session_id=item.session_id,
                running=item.state is ContainerState.RUNNING,
                isolated=item.name in covered,
            )
            for item in site.host.containers.items().values()
        ),
        datasets=tuple(
            Dataset(
                name=f"{site.workspaces.root}/{item.user_id}/{item.session_id}",
                session_id=item.session_id,
                snapshots=tuple(snapshot.name for snapshot in item.snapshots),
                files=item.files > 0,
            )
            for item in site.host.workspaces.items().values()
        ),
        rules=rules is not None and rules.covered is not None,
        strays=tuple(stray.name for item in site.host.isolation.items().values() for stray in item.strays),
        tolerated=tolerated,
    )


def revisions(site: Site) -> dict[UUID, int]:
    """The revision of each session's record."""
    return {UUID(row["id"]): row["revision"] for row in rows(site.database.path.parent, "sessions", "created_at")}


def sharing(site: Site) -> dict[str, list[str]]:
    """Which running containers have which GPU, by its UUID."""
    found: dict[str, list[str]] = {}
    for item in site.host.containers.items().values():
        if item.state is ContainerState.RUNNING and item.gpu_uuid:
            found.setdefault(item.gpu_uuid, []).append(item.name)
    return found


def without(world: World, sessions: Collection[UUID], gpus: Collection[str]) -> World:
    """The world but for some sessions and what is theirs, and but for some GPUs."""
    theirs = {record.gpu_id for record in world.records if record.active and record.id in sessions}
    return replace(
        world,
        records=tuple(record for record in world.records if record.id not in sessions),
        containers=tuple(found for found in world.containers if found.session_id not in sessions),
        datasets=tuple(found for found in world.datasets if found.session_id not in sessions),
        devices=tuple(
            device
            for device in world.devices
            if device.id not in theirs and device.quarantine_session_id not in sessions and device.uuid not in gpus
        ),
        tolerated=world.tolerated,
    )


def _processes(site: Site) -> dict[str, tuple[int, ...]]:
    shown: dict[str, list[int]] = {}
    for uuid, gpu in site.host.gpus.items().items():
        shown.setdefault(uuid, []).extend(gpu.process_ids)
    for container in site.host.containers.items().values():
        if container.state is ContainerState.RUNNING and container.process_id is not None:
            shown.setdefault(container.gpu_uuid, []).append(container.process_id)
    return {uuid: tuple(sorted(processes)) for uuid, processes in shown.items()}
