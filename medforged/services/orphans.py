"""Owns finding what no record explains, and removing it when an operator says so; never anybody's files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address

from medforged.domain.errors import MedForgeError, WorkspaceError
from medforged.domain.isolation import Stray, StrayKind
from medforged.domain.orphans import Orphan, OrphanKind
from medforged.domain.sessions import Session
from medforged.domain.workspaces import WorkspaceKey
from medforged.ports.containers import ContainerRuntime
from medforged.ports.isolation import Isolation
from medforged.ports.workspaces import WorkspaceStore
from medforged.services.journal import Journal
from medforged.services.records import Records

__all__ = ["OrphanSearch"]

_KINDS = {StrayKind.PORT: OrphanKind.PORT, StrayKind.RULES: OrphanKind.RULES}
_Found = tuple[Orphan, Callable[[], Awaitable[None]]]


class OrphanSearch:
    """Looks through containers, workspaces and isolation. A part that does not answer is told, and hides no other."""

    def __init__(
        self,
        *,
        records: Records,
        containers: ContainerRuntime,
        workspaces: WorkspaceStore,
        isolation: Isolation,
        network: str,
        proxy: IPv4Address,
        journal: Journal,
    ) -> None:
        self._records = records
        self._containers = containers
        self._workspaces = workspaces
        self._isolation = isolation
        self._network = network
        self._proxy = proxy
        self._journal = journal

    async def find(self) -> tuple[tuple[Orphan, ...], tuple[str, ...]]:
        """What was found, and one sentence for each part that could not be looked at. Changes nothing."""
        found, problems = await self._search()
        return tuple(orphan for orphan, _ in found), problems

    async def remove(self) -> tuple[tuple[Orphan, ...], tuple[str, ...]]:
        """The same, and each orphan is removed. A workspace goes only when nothing is in it and nothing is kept of it.

        A search of its own comes right before, so nothing is removed that a record explains by now.
        """
        found, problems = await self._search()
        fates = []
        for orphan, undo in found:
            try:
                await undo()
            except MedForgeError as error:
                fates.append(replace(orphan, message=str(error)))
            else:
                fates.append(replace(orphan, removed=True))
            self._journal.note(
                "orphan.removed" if fates[-1].removed else "orphan.kept",
                kind=orphan.kind.value, name=orphan.name, reason=orphan.reason, message=fates[-1].message,
            )  # fmt: skip
        return tuple(fates), problems

    async def _search(self) -> tuple[list[_Found], tuple[str, ...]]:
        parts = await asyncio.gather(
            self._orphaned_containers(), self._orphaned_workspaces(), self._strays(), return_exceptions=True
        )
        found: list[_Found] = []
        problems = []
        for part in parts:
            if isinstance(part, MedForgeError):
                problems.append(str(part))
            elif isinstance(part, BaseException):
                raise part
            else:
                found += part
        return found, tuple(problems)

    async def _orphaned_containers(self) -> list[_Found]:
        listing = await self._containers.containers()
        explained = await self._records.recorded({seen.session_id for seen in listing if seen.session_id is not None})
        # Ended sessions' containers are explained by their record, and recovery removes them.
        sessions: dict[str, Session] = {}
        for session_id in explained:
            session = await self._records.get(session_id)
            sessions[session.container_name] = session
        found: list[_Found] = []
        for seen in listing:
            session_of_name = sessions.get(seen.name)
            if session_of_name is not None and session_of_name.id == seen.session_id:
                continue
            reason = "its label names no session" if seen.session_id is None else f"no session {seen.session_id} has it"
            orphan = Orphan(OrphanKind.CONTAINER, seen.name, f"{reason}; it is {seen.state.value}")
            found.append((orphan, partial(self._containers.remove, seen.name)))
        return found

    async def _orphaned_workspaces(self) -> list[_Found]:
        keys = await self._workspaces.keys()
        explained = await self._records.recorded({key.session_id for key in keys})
        found: list[_Found] = []
        for key in keys:
            if key.session_id not in explained:
                orphan = Orphan(
                    OrphanKind.DATASET, self._workspaces.locate(key).dataset, f"no session {key.session_id} is recorded"
                )
                found.append((orphan, partial(self._discard, key)))
        return found

    async def _discard(self, key: WorkspaceKey) -> None:
        if not await self._workspaces.is_empty(key):
            name = self._workspaces.locate(key).dataset
            raise WorkspaceError(
                f"cannot remove {name}: it has files or snapshots, or cannot be looked into; "
                "keep it, or destroy it yourself"
            )
        await self._workspaces.discard(key)

    async def _strays(self) -> list[_Found]:
        network = await self._containers.network(self._network)
        found: list[_Found] = []
        for stray in await self._isolation.strays(network, self._proxy):
            orphan = Orphan(_KINDS[stray.kind], stray.name, stray.reason)
            found.append((orphan, partial(self._remove_stray, stray)))
        return found

    async def _remove_stray(self, stray: Stray) -> None:
        await self._isolation.remove_stray(await self._containers.network(self._network), self._proxy, stray)
