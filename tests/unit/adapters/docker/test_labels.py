"""Owns the tests of the rule by which the daemon knows its own containers."""

from __future__ import annotations

from uuid import UUID

import pytest

from medforged.adapters.docker import labels
from tests.fakes.containers import container_spec

pytestmark = pytest.mark.unit

IMAGE = f"sha256:{'cd' * 32}"
OTHER_IMAGE = f"sha256:{'ef' * 32}"
OURS = labels.container_labels(container_spec(), instance="medforge", image_id=IMAGE)


def test_container_that_was_made_here_is_ours() -> None:
    assert labels.is_ours(OURS, instance="medforge", image_id=IMAGE)
    assert labels.is_ours(OURS | {"something": "else"}, instance="medforge", image_id=IMAGE)


@pytest.mark.parametrize("without", [labels.INSTANCE, labels.IMAGE])
def test_container_without_a_label_is_not_ours(without: str) -> None:
    kept = {key: value for key, value in OURS.items() if key != without}

    assert not labels.is_ours(kept, instance="medforge", image_id=IMAGE)
    assert not labels.is_ours({}, instance="medforge", image_id="")
    assert not labels.is_ours(OURS | {labels.IMAGE: ""}, instance="medforge", image_id="")


def test_container_of_another_installation_is_not_ours() -> None:
    assert not labels.is_ours(OURS, instance="medforge2", image_id=IMAGE)


def test_container_made_from_an_image_that_inherited_our_labels_is_not_ours() -> None:
    assert not labels.is_ours(OURS, instance="medforge", image_id=OTHER_IMAGE)


@pytest.mark.parametrize("value", ["", "nonsense", "../x", "6f1c1d0e-0000-4000-8000-00000000000"])
def test_malformed_session_is_none(value: str) -> None:
    assert labels.session_id({labels.SESSION: value}) is None
    assert labels.session_id({}) is None


def test_session() -> None:
    session = UUID("6f1c1d0e-0000-4000-8000-000000000001")

    assert labels.session_id({labels.SESSION: str(session)}) == session
