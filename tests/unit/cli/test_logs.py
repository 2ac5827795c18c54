"""What `medforgectl logs` asks the journal for, and what it never passes on."""

from __future__ import annotations

import click
import pytest

from cli.commands.logs import matches

pytestmark = pytest.mark.unit

SESSION = "6f0bd8b0-5a7e-4c83-9d1e-0123456789ab"


def test_slugs_and_ids_become_matches_that_all_have_to_hold() -> None:
    assert matches("abcd2345", None, None, None) == ["SLUG=abcd2345"]
    assert matches(SESSION, SESSION, "session.stop", "req-1.2_3") == [
        f"SESSION_ID={SESSION}",
        f"USER_ID={SESSION}",
        "EVENT=session.stop",
        "CORRELATION_ID=req-1.2_3",
    ]
    assert matches(None, None, None, None) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "abc",
        "ABCD2345",
        "abcd2345\n",
        "--file=/etc/shadow",
        "abcd234 +",
        "+",
        SESSION.upper(),
        f"{SESSION}x",
        "_PID=1",
    ],
)
def test_nothing_else_reaches_journalctl(wrong: str) -> None:
    for arguments in ((wrong, None, None, None), (None, wrong, None, None)):
        with pytest.raises(click.BadParameter, match=r"is not|neither"):
            matches(*arguments)


@pytest.mark.parametrize("wrong", ["", "Session.stop", "a b", "a=b", "-f", "x" * 65])
def test_events_and_correlations_too(wrong: str) -> None:
    with pytest.raises(click.BadParameter):
        matches(None, None, wrong, None)
    if "=" in wrong or " " in wrong or not wrong or len(wrong) > 64:
        with pytest.raises(click.BadParameter):
            matches(None, None, None, wrong)
