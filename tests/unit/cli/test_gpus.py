"""A GPU is named by its id or its UUID, and one word stands for its state."""

from __future__ import annotations

from uuid import UUID

import click
import pytest

from cli.gpus import reference, state
from medforged.contract.gpus import GpuHealth
from tests.fakes.daemon import make_gpu

pytestmark = pytest.mark.unit


def test_ids_and_uuids() -> None:
    assert reference("0") == 0
    assert reference("12") == 12
    assert reference("GPU-5d2f8a1e-0c6b-4f0e-9a37-2b8e6c1d4f70") == "GPU-5d2f8a1e-0c6b-4f0e-9a37-2b8e6c1d4f70"


@pytest.mark.parametrize(
    "text", ["", "-1", "1.0", "1e3", "٣", "1234567890", "all", "GPU-", "gpu-3", "GPU-3\n", "GPU-../3", "MIG-3", "GPU 3"]
)
def test_neither(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a GPU's id nor its UUID"):
        reference(text)


@pytest.mark.parametrize("unhealthy", [True, False])
@pytest.mark.parametrize("quarantined", [True, False])
@pytest.mark.parametrize("disabled", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_the_first_that_applies_is_its_state(unhealthy: bool, quarantined: bool, disabled: bool, held: bool) -> None:
    gpu = make_gpu(
        3,
        health=GpuHealth.UNHEALTHY if unhealthy else GpuHealth.HEALTHY,
        quarantine="" if quarantined else None,
        enabled=not disabled,
        session_id=UUID(int=1) if held else None,
    )
    words = {"unhealthy": unhealthy, "quarantined": quarantined, "disabled": disabled, "held": held, "free": True}
    assert state(gpu) == next(word for word, applies in words.items() if applies)
