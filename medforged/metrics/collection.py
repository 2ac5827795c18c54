"""Owns the daemon's metrics: the table of them, and reading their values from what is in memory already."""

from __future__ import annotations

from collections.abc import Mapping

from medforged import exposition
from medforged.domain.gpus import GpuHealth
from medforged.exposition import Metric, counter, gauge, histogram
from medforged.metrics.sessions import SessionTally
from medforged.services.assembly import Services

__all__ = ["METRICS", "DaemonMetrics"]

_GPU = ("uuid", "index")

_BUILD = gauge("medforged_build_info", "What runs; always 1", "version", "python")

# `gpu_id` is its number in records and logs.
_GPU_INFO = gauge("medforged_gpu_info", "A GPU that the daemon knows; always 1", *_GPU, "gpu_id", "name")
_PRESENT = gauge("medforged_gpu_present", "Whether the driver told of it at the last look", *_GPU)
_HEALTHY = gauge("medforged_gpu_healthy", "Whether nothing is wrong with it", *_GPU)
_ENABLED = gauge("medforged_gpu_enabled", "Whether operators let it be given to sessions", *_GPU)
_QUARANTINED = gauge("medforged_gpu_quarantined", "Whether it is kept from sessions until it is proven free", *_GPU)
_HELD = gauge("medforged_gpu_held", "Whether an active session has it", *_GPU)
_UTILIZATION = gauge("medforged_gpu_utilization_ratio", "Share of time in which it computed, 0 to 1", *_GPU)
_MEMORY_USED = gauge("medforged_gpu_memory_used_bytes", "Its memory that is in use", *_GPU)
_MEMORY = gauge("medforged_gpu_memory_total_bytes", "Its memory", *_GPU)
_TEMPERATURE = gauge("medforged_gpu_temperature_celsius", "Its temperature", *_GPU)
_POWER = gauge("medforged_gpu_power_watts", "The power that it draws", *_GPU)
_FAULTS = gauge("medforged_gpu_driver_faults", "How many things the driver could not tell at the last look")

_SESSIONS = gauge("medforged_sessions", "Active sessions by status", "status")
_ENDS = counter("medforged_session_ends_total", "Sessions that have ended, by why", "reason")
_CREATES = histogram("medforged_session_create_seconds", "From allocation until the IDE answered or failed", "outcome")
_STOPS = histogram("medforged_session_stop_seconds", "From the decision to end a session to its end", "reason")

_ALIVE = gauge("medforged_recovery_alive", "Whether recovery's loop runs")
_PASSES = counter("medforged_recovery_passes_total", "Passes of recovery that ended, by how", "result")
_PASSED = gauge("medforged_recovery_last_success_timestamp_seconds", "When a pass last succeeded, in Unix time")
_FOLLOWED = gauge("medforged_events_followed", "Whether the engine's events are heard")
_ISOLATED = gauge("medforged_isolation_holds", "Whether isolation holds; while it does not, no session starts")

_REVISION = gauge("medforged_watch_revision", "The revision of the newest change of a session")
_WATCHERS = gauge("medforged_watchers", "Watch streams that are open")
_CALLS = counter("medforged_rpc_calls_total", "Calls of the socket that were answered", "method", "code")

METRICS = (
    _BUILD, _GPU_INFO, _PRESENT, _HEALTHY, _ENABLED, _QUARANTINED, _HELD, _UTILIZATION, _MEMORY_USED, _MEMORY,
    _TEMPERATURE, _POWER, _FAULTS, _SESSIONS, _ENDS, _CREATES, _STOPS, _ALIVE, _PASSES, _PASSED, _FOLLOWED, _ISOLATED,
    _REVISION, _WATCHERS, _CALLS, *exposition.PROCESS,
)  # fmt: skip


class DaemonMetrics:
    """`answered`: calls of the socket by method and code.

    `read` asks neither the host nor the database: what it tells is as old as the last look at them.
    """

    def __init__(self, services: Services, tally: SessionTally, answered: Mapping[tuple[str, ...], int]) -> None:
        self._services = services
        self._tally = tally
        self._answered = answered

    async def read(self) -> list[Metric]:
        return [
            exposition.build_info(_BUILD),
            *self._gpus(),
            *self._sessions(),
            *self._parts(),
            _REVISION.number(self._tally.revision),
            _WATCHERS.number(self._services.feed.watchers),
            _CALLS.numbers(self._answered),
            *exposition.process(),
        ]

    def _gpus(self) -> list[Metric]:
        watch = self._services.watch
        known = {(gpu.uuid, str(gpu.index)): gpu for gpu in watch.known.values()}
        seen = {labels: watch.devices[gpu.uuid] for labels, gpu in known.items() if gpu.uuid in watch.devices}
        held = self._tally.held_gpus()
        return [
            _GPU_INFO.numbers({(*labels, str(gpu.id), gpu.name): 1 for labels, gpu in known.items()}),
            _PRESENT.numbers({labels: labels in seen for labels in known}),
            _HEALTHY.numbers({labels: gpu.health is GpuHealth.HEALTHY for labels, gpu in known.items()}),
            _ENABLED.numbers({labels: gpu.enabled for labels, gpu in known.items()}),
            _QUARANTINED.numbers({labels: gpu.quarantine is not None for labels, gpu in known.items()}),
            _HELD.numbers({labels: gpu.id in held for labels, gpu in known.items()}),
            _UTILIZATION.numbers(
                {at: gpu.utilization_percent / 100 for at, gpu in seen.items() if gpu.utilization_percent is not None}
            ),
            _MEMORY_USED.numbers(
                {at: gpu.memory_used_bytes for at, gpu in seen.items() if gpu.memory_used_bytes is not None}
            ),
            _MEMORY.numbers({labels: gpu.memory_total_bytes for labels, gpu in known.items()}),
            _TEMPERATURE.numbers(
                {at: gpu.temperature_celsius for at, gpu in seen.items() if gpu.temperature_celsius is not None}
            ),
            _POWER.numbers(
                {at: gpu.power_milliwatts / 1000 for at, gpu in seen.items() if gpu.power_milliwatts is not None}
            ),
            _FAULTS.number(len(watch.faults)),
        ]

    def _sessions(self) -> list[Metric]:
        tally = self._tally
        return [
            _SESSIONS.numbers({(status.value,): count for status, count in tally.by_status().items()}),
            _ENDS.numbers({(reason.value,): count for reason, count in tally.ends.items()}),
            _CREATES.durations({(outcome.value,): durations for outcome, durations in tally.creates.items()}),
            _STOPS.durations({(reason.value,): durations for reason, durations in tally.stops.items()}),
        ]

    def _parts(self) -> list[Metric]:
        recovery = self._services.recovery
        return [
            _ALIVE.number(recovery.alive),
            _PASSES.numbers({("ok",): recovery.passes, ("failed",): recovery.failures}),
            _PASSED.number(recovery.succeeded_at.timestamp() if recovery.succeeded_at else None),
            _FOLLOWED.number(self._services.events.problem is None),
            _ISOLATED.number(self._services.guard.problem is None),
        ]
