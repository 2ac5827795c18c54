"""Tables carry no markup and no escapes away from a terminal, and JSON is the contract's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from cli.output import gibibytes, moment, print_json, print_table, reading
from medforged.contract.daemon import Check, DaemonHealth, Health

pytestmark = pytest.mark.unit


def test_a_table_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["slug", "message"], [("abcd2345", "[red]x[/red] \x1b[31m " + "long " * 60), ("e", "")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["SLUG      MESSAGE", "abcd2345  [red]x[/red] \\x1b[31m " + ("long " * 60).rstrip(), "e"]


def test_an_empty_table_still_says_what_it_would_show(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["slug", "status"], [])
    assert capsys.readouterr().out.split() == ["SLUG", "STATUS"]


def test_json_is_the_contracts_type(capsys: pytest.CaptureFixture[str]) -> None:
    told = DaemonHealth(health=Health.DEGRADED, checks=[Check(name="gpus", health=Health.DEGRADED, message="\x9b2J")])
    print_json(told)
    out = capsys.readouterr().out
    assert msgspec.json.decode(out, type=DaemonHealth) == told
    assert "\x9b" not in out


def test_times_are_utc_to_the_second() -> None:
    assert moment(datetime(2026, 2, 17, 4, 58, 24, 293000, tzinfo=UTC)) == "2026-02-17T04:58:24Z"
    assert moment(datetime(2026, 2, 17, 5, 58, 24, tzinfo=timezone(timedelta(hours=1)))) == "2026-02-17T04:58:24Z"
    assert moment(None) == "-"


def test_readings() -> None:
    assert gibibytes(80 * 2**30) == "80.0"
    assert gibibytes(None) == "-"
    assert reading(123_456, "W", 1000) == "123 W"
    assert reading(0, "%") == "0 %"
    assert reading(None, "W", 1000) == "-"
