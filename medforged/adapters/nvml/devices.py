"""Owns the reading of one GPU: identity, readings, processes, MIG mode, recovery action, Xid events."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pynvml

from medforged.adapters.nvml.errors import NOT_OFFERED, explain_device, is_uninitialized
from medforged.adapters.nvml.events import WATCHED
from medforged.adapters.nvml.xids import XID_DOUBLE_BIT_ECC, XidBook, explain_recovery
from medforged.domain.gpus import GpuDevice

__all__ = ["NvmlDevice", "join_faults", "kernel_pci_address"]

T = TypeVar("T")
_EVENTS_PER_LOOK = 1000  # bounds one look at a GPU that floods its event queue; the rest comes with the next look
_MIG = "MIG mode is on, which medforged does not allocate; switch it off with `nvidia-smi -mig 0` and reset the GPU"
_NO_MEMORY: tuple[int, int | None] = (0, None)
_NO_PROCESSES: tuple[int, ...] = ()
_BUS_ID = re.compile(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])")


class NvmlDevice:
    """The GPU at one of NVML's indexes. Its methods block; call them from one thread at a time.

    Xid events are queued by the driver from the first look on and fetched with every look. On Linux each
    event keeps its own number (NVML API reference, nvmlEventSetWait_v2), so none hides another.
    """

    def __init__(self, index: int, xids: XidBook) -> None:
        self._index = index
        self._xids = xids
        self._events: Any = None

    def read(self) -> GpuDevice:
        """Raises NVMLError when the GPU does not tell its UUID, or when NVML is not initialised (any more).

        A device whose memory is the host's own (total 0) does not offer that reading.
        """
        handle = pynvml.nvmlDeviceGetHandleByIndex(self._index)
        uuid = str(pynvml.nvmlDeviceGetUUID(handle))
        asking = _Asking()
        asking.ask("Xid events", None, lambda: self._fetch_xids(handle, uuid))  # first: the rest may never answer
        name = asking.ask("name", "", lambda: str(pynvml.nvmlDeviceGetName(handle)))
        bus_id = asking.ask("PCI address", "", lambda: str(pynvml.nvmlDeviceGetPciInfo_v3(handle).busId))
        total, used = asking.ask("memory", _NO_MEMORY, lambda: _memory(handle))
        utilization = asking.ask("utilization", None, lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
        temperature = asking.ask(
            "temperature", None, lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        )
        power = asking.ask("power usage", None, lambda: int(pynvml.nvmlDeviceGetPowerUsage(handle)))
        mig = asking.ask("MIG mode", 0, lambda: int(pynvml.nvmlDeviceGetMigMode(handle)[0]))
        recovery = asking.ask("recovery action", 0, lambda: _recovery_action(handle))
        processes = _processes(handle, asking)
        return GpuDevice(
            uuid=uuid,
            index=self._index,
            name=name,
            pci_address=kernel_pci_address(bus_id),
            memory_total_bytes=total,
            memory_used_bytes=used,
            utilization_percent=utilization,
            temperature_celsius=temperature,
            power_milliwatts=power,
            process_ids=tuple(sorted(processes)),
            fault=join_faults((*asking.faults, explain_recovery(recovery), _MIG if mig else None)),
        )

    def release(self) -> None:
        """Give the event queue back; safe to call twice."""
        events, self._events = self._events, None
        if events is not None:
            with contextlib.suppress(pynvml.NVMLError):  # the driver may be gone, and the queue with it
                pynvml.nvmlEventSetFree(events)

    def _fetch_xids(self, handle: Any, uuid: str) -> None:
        if self._events is None:
            self._watch(handle)
        if self._events is None:
            return
        for _ in range(_EVENTS_PER_LOOK):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_TIMEOUT:
                    return
                self.release()  # an event set is undefined after an error: the next look makes a new one
                raise
            ecc = event.eventType == pynvml.nvmlEventTypeDoubleBitEccError
            self._xids.note(uuid, XID_DOUBLE_BIT_ECC if ecc else int(event.eventData))

    def _watch(self, handle: Any) -> None:
        wanted = pynvml.nvmlDeviceGetSupportedEventTypes(handle) & WATCHED
        if not wanted:
            return
        self._events = pynvml.nvmlEventSetCreate()
        try:
            pynvml.nvmlDeviceRegisterEvents(handle, wanted, self._events)
        except pynvml.NVMLError:
            self.release()
            raise


class _Asking:
    """Asks for one reading after the other; what cannot be read becomes a fault, not an end."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def ask(self, what: str, default: T, question: Callable[[], T], *, required: bool = False) -> T:
        """The answer, or the default when the device does not offer it (a fault when required) or fails."""
        try:
            return question()
        except pynvml.NVMLError as error:
            if is_uninitialized(error):
                raise
            if required or error.value not in NOT_OFFERED:
                self.faults.append(explain_device(error, what))
        except ValueError as error:  # a failing GPU may tell bytes that are no text
            self.faults.append(f"cannot read its {what}: {error}")
        return default


def _memory(handle: Any) -> tuple[int, int | None]:
    """Total and used bytes; the second version tells used memory without what the driver keeps for itself."""
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if error.value not in NOT_OFFERED:
            raise
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.used)


def _processes(handle: Any, asking: _Asking) -> set[int]:
    # Whoever releases a GPU relies on this list being complete, so a GPU that does not give it is faulty.
    compute = _pids(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    graphics = _pids(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle)
    shared = _pids(pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, handle)
    return {
        *asking.ask("compute processes", _NO_PROCESSES, compute, required=True),
        *asking.ask("graphics processes", _NO_PROCESSES, graphics),
        *asking.ask("MPS processes", _NO_PROCESSES, shared),
    }


def _recovery_action(handle: Any) -> int:
    """nvmlDeviceGpuRecoveryAction_t, 0 from drivers that do not know the field yet."""
    (field,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if field.nvmlReturn == pynvml.NVML_ERROR_INVALID_ARGUMENT:
        return 0
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    return int(field.value.uiVal)


def _pids(query: Callable[[Any], Iterable[Any]], handle: Any) -> Callable[[], tuple[int, ...]]:
    return lambda: tuple(int(process.pid) for process in query(handle))


def kernel_pci_address(bus_id: str) -> str:
    """NVML's bus id (`00000000:C1:00.0`) as the kernel, lspci and the journal write it (`0000:c1:00.0`)."""
    match = _BUS_ID.fullmatch(bus_id)
    if match is None:
        return bus_id
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"


def join_faults(faults: Iterable[str | None]) -> str | None:
    """All distinct faults in their order as one text, None when there are none."""
    said = dict.fromkeys(fault for fault in faults if fault)
    return "; also ".join(said) or None
