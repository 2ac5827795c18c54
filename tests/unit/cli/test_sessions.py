"""A session is named by its id or its slug, and by nothing else."""

from __future__ import annotations

from uuid import UUID

import click
import pytest

from cli.sessions import ACTIVE, reference
from medforged.contract.sessions import SessionStatus
from medforged.domain.sessions import ACTIVE as DOMAIN_ACTIVE
from medforged.domain.sessions import new_slug

pytestmark = pytest.mark.unit


def test_an_id_in_any_spelling() -> None:
    expected = UUID("4b1d3c6e-8f0a-4a5e-9c53-0d5f6f0b7c11")
    assert reference("4b1d3c6e-8f0a-4a5e-9c53-0d5f6f0b7c11") == expected
    assert reference("4B1D3C6E8F0A4A5E9C530D5F6F0B7C11") == expected


def test_every_slug_that_the_daemon_makes() -> None:
    for _ in range(100):
        slug = new_slug()
        assert reference(slug) == slug


@pytest.mark.parametrize(
    "text", ["", "abcd234", "abcd23456", "ABCD2345", "abcd2349", "mf-session-abcd2345", "../../etc"]
)
def test_neither(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a session's id nor its slug"):
        reference(text)


def test_active_means_what_it_means_to_the_daemon() -> None:
    assert {status.value for status in ACTIVE} == {status.value for status in DOMAIN_ACTIVE}
    assert all(isinstance(status, SessionStatus) for status in ACTIVE)
