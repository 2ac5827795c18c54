"""Owns translating the `daemon.*` methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from medforged import __version__
from medforged.contract import daemon as wire
from medforged.domain.adapters import AdapterDescription
from medforged.ports.state import StateStore
from medforged.services.health import Finding, HealthCheck

__all__ = ["DaemonHandlers"]


class DaemonHandlers:
    """The `daemon.*` methods."""

    def __init__(
        self,
        *,
        health: HealthCheck,
        state: StateStore,
        adapters: Callable[[], tuple[AdapterDescription, ...]],
        instance: str,
        started_at: datetime,
    ) -> None:
        self._health = health
        self._state = state
        self._adapters = adapters
        self._instance = instance
        self._started_at = started_at

    async def health(self, _params: wire.GetStatus) -> wire.DaemonHealth:
        findings = await self._health.findings()
        return wire.DaemonHealth(health=_overall(findings), checks=[_check(finding) for finding in findings])

    async def status(self, _params: wire.GetStatus) -> wire.DaemonStatus:
        findings = await self._health.findings()
        active = await self._state.active()
        known = await self._state.gpus()
        holders = await self._state.gpu_holders()
        usable = [gpu for gpu in known if gpu.usable]
        return wire.DaemonStatus(
            version=__version__,
            instance=self._instance,
            started_at=self._started_at,
            health=_overall(findings),
            checks=[_check(finding) for finding in findings],
            adapters=[
                wire.Adapter(port=a.port, adapter=a.adapter, real=a.real, reason=a.reason) for a in self._adapters()
            ],
            sessions_by_status=dict(Counter(session.status.value for session in active)),
            gpus_total=len(known),
            gpus_free=sum(gpu.id not in holders for gpu in usable),
        )


def _overall(findings: tuple[Finding, ...]) -> wire.Health:
    return wire.Health.OK if all(finding.problem is None for finding in findings) else wire.Health.DEGRADED


def _check(finding: Finding) -> wire.Check:
    return wire.Check(
        name=finding.name,
        health=wire.Health.OK if finding.problem is None else wire.Health.DEGRADED,
        message=finding.problem or "",
    )
