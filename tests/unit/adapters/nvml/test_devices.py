"""The pure parts of reading a GPU."""

from __future__ import annotations

import pytest

from medforged.adapters.nvml.devices import join_faults, kernel_pci_address

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("bus_id", "address"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("00000000:C1:00.0", "0000:c1:00.0"),
        ("0000:3B:1F.0", "0000:3b:1f.0"),
        ("00010000:01:00.0", "10000:01:00.0"),  # a domain of its own, as Intel VMD and Hyper-V make them
        ("", ""),
        ("somewhere", "somewhere"),
    ],
)
def test_pci_addresses_are_the_kernels(bus_id: str, address: str) -> None:
    assert kernel_pci_address(bus_id) == address


def test_faults_are_joined_once_each() -> None:
    assert join_faults(["lost", None, "lost", "hot"]) == "lost; also hot"


def test_no_fault_is_none() -> None:
    assert join_faults([None, ""]) is None
