"""Owns keeping sessions apart: established before the first session, re-asserted all the time, known when broken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from medforged.domain.containers import NetworkSpec, SessionNetwork
from medforged.domain.errors import ContainerError, ContainerMissing, IsolationError
from medforged.domain.isolation import IsolationReport
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.isolation import Isolation
from medforged.services.journal import Journal

__all__ = ["IsolationGuard"]

# How often a probe that starting containers have disturbed is repeated before the next interval.
_PROBES = 3
_PROBE_AGAIN_SECONDS = 0.5


class IsolationGuard:
    """`problem` is None while isolation holds; otherwise the sentence that refuses new sessions."""

    def __init__(
        self,
        isolation: Isolation,
        containers: ContainerRuntime,
        spec: NetworkSpec,
        proxy: IPv4Address,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._isolation = isolation
        self._containers = containers
        self._spec = spec
        self._proxy = proxy
        self._clock = clock
        self._journal = journal
        self._serial = asyncio.Lock()
        # Containers that are starting now, and how many ever were.
        self._admitting = 0
        self._admitted = 0
        # What an adapter remarks about isolation that holds, such as a proxy that has no port (yet).
        self._remarks: tuple[str, ...] = ()
        self.problem: str | None = "isolation has not been established yet"

    async def establish(self) -> None:
        """Make the network and every layer, and probe them with traffic. The outcome is in `problem`."""
        async with self._serial:
            try:
                await self._containers.ensure_network(self._spec)
                # In place is not yet proven: sessions wait until traffic has shown it.
                self._note(await self._probe())
            except (IsolationError, ContainerError) as error:
                self._broken(str(error))

    async def assert_again(self, lost: Callable[[], Awaitable[None]] | None = None) -> None:
        """Repair whatever has gone; when the network was lost or isolation was broken, establish and probe anew.

        `lost` is called when isolation has just been lost, and before the establishing, which may take long.
        """
        if self._broken_now():
            await self.establish()
            return
        async with self._serial:
            try:
                network = await self._containers.network(self._spec.name)
            except ContainerMissing:
                self._broken(f"the network {self._spec.name} is gone")
            except ContainerError as error:
                self._broken(str(error))
            else:
                await self._ensure(network)
        if self._broken_now():
            if lost is not None:
                await lost()
            await self.establish()

    async def prove(self) -> None:
        """Probe with traffic, although nothing seems wrong: what was read back is not what packets meet.

        Creates need not wait for it: a container that starts meanwhile is open until it is covered, so what a probe
        finds then says nothing, and the next one is asked.
        """
        if self._broken_now():
            return
        try:
            for _ in range(_PROBES):
                admitted = self._admitted
                report = await self._probe()
                if report.holds or (self._admitting == 0 and self._admitted == admitted):
                    self._note(report)
                    return
                await self._clock.sleep(_PROBE_AGAIN_SECONDS)
        except (IsolationError, ContainerError) as error:
            self._broken(str(error))

    async def _probe(self) -> IsolationReport:
        network = await self._containers.network(self._spec.name)
        report = await self._isolation.ensure(network, self._proxy)
        return await self._isolation.verify(network, self._proxy) if report.holds else report

    @contextmanager
    def admitting(self) -> Iterator[None]:
        """Around the start of a container up to and with its `cover`."""
        self._admitted += 1
        self._admitting += 1
        try:
            yield
        finally:
            self._admitting -= 1

    @property
    def covers_soon(self) -> bool:
        """Whether a container is starting now, at the end of which everything is re-asserted anyway."""
        return self._admitting > 0

    async def cover(self) -> None:
        """Bring a container that has just started under isolation. Raises IsolationError when that fails."""
        async with self._serial:
            await self._ensure(await self._containers.network(self._spec.name))
        if self.problem is not None:
            raise IsolationError(f"cannot isolate the session: {self.problem}")

    def _broken_now(self) -> bool:
        return self.problem is not None

    async def _ensure(self, network: SessionNetwork) -> None:
        try:
            self._note(await self._isolation.ensure(network, self._proxy))
        except IsolationError as error:
            self._broken(str(error))

    def _note(self, report: IsolationReport) -> None:
        if not report.holds:
            self._broken("; ".join(report.problems) or "isolation does not hold")
            return
        if report.changed or self.problem is not None or report.problems != self._remarks:
            self._journal.isolation(holds=True, changed=report.changed, problems=report.problems)
        self._remarks = report.problems
        self.problem = None

    def _broken(self, problem: str) -> None:
        if problem != self.problem:
            self._journal.isolation(holds=False, changed=(), problems=(problem,))
        self.problem = problem
