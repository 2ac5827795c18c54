"""Which Xids break a GPU, and how they are remembered."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from medforged.adapters.nvml.xids import XidBook, explain_recovery, explain_xids, is_fault

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109, 94, 63, 154])
def test_what_a_tenant_can_cause_is_no_fault(xid: int) -> None:
    assert not is_fault(xid)
    assert explain_xids([xid]) is None


@pytest.mark.parametrize("xid", [48, 62, 64, 74, 79, 95, 119, 9999])
def test_what_is_broken_or_unknown_is_a_fault(xid: int) -> None:
    assert is_fault(xid)
    assert f"Xid {xid}" in (explain_xids([xid]) or "")


def test_several_are_told_once_each_in_order() -> None:
    said = explain_xids([79, 45, 48, 79])

    assert said is not None
    assert said.startswith("the driver reported Xid 48 (uncorrectable memory error) and Xid 79 (the GPU fell off")
    assert said.count("Xid 79") == 1
    assert "45" not in said
    assert said.endswith("then run `medforgectl gpus recheck`")


def test_the_book_keeps_faults_by_gpu() -> None:
    book = XidBook()
    with capture_logs():
        book.note("GPU-a", 79)
        book.note("GPU-b", 13)

    assert "Xid 79" in (book.fault_of("GPU-a") or "")
    assert book.fault_of("GPU-b") is None
    assert book.fault_of("GPU-c") is None


def test_what_is_forgotten_counts_again_when_it_is_reported_again() -> None:
    book = XidBook()
    with capture_logs():
        book.note("GPU-a", 79)
        book.note("GPU-b", 62)
        book.forget("GPU-a")

        assert book.fault_of("GPU-a") is None
        assert book.fault_of("GPU-b")
        book.note("GPU-a", 48)

    assert "Xid 48" in (book.fault_of("GPU-a") or "")
    assert "Xid 79" not in (book.fault_of("GPU-a") or "")


def test_the_journal_tells_what_was_forgotten() -> None:
    book = XidBook()
    with capture_logs():
        book.note("GPU-a", 79)
        book.note("GPU-a", 13)
    with capture_logs() as logs:
        book.forget("GPU-a")
        book.forget("GPU-a")
        book.forget("GPU-c")

    assert logs == [
        {"event": "gpu.faults.forgotten", "gpu_uuid": "GPU-a", "xids": [13, 79], "log_level": "info"},
    ]


def test_the_book_writes_every_xid_to_the_journal() -> None:
    with capture_logs() as logs:
        book = XidBook()
        book.note("GPU-a", 13)
        book.note("GPU-a", 79)

    assert [(log["event"], log["gpu_uuid"], log["xid"], log["fault"]) for log in logs] == [
        ("gpu.xid", "GPU-a", 13, False),
        ("gpu.xid", "GPU-a", 79, True),
    ]


@pytest.mark.parametrize(
    ("action", "remedy"), [(1, "--gpu-reset"), (2, "reboot"), (3, "peer-to-peer"), (9, "action 9")]
)
def test_a_recommended_recovery_is_a_fault(action: int, remedy: str) -> None:
    assert remedy in (explain_recovery(action) or "")


def test_no_recovery_is_no_fault() -> None:
    assert explain_recovery(0) is None
