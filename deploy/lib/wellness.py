"""Owns whether an installation is well: what the daemon says of itself, and whether the facade answers."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import places
from common import Failure, run
from releases import Release

_FACADE_SOCKET = Path("/run/medforge-facade/facade.sock")
# How long a release may take to be well: recovery looks at every session first.
_PATIENCE_SECONDS = 180
# How long it has to stay so: a program that ends again and again is not well in between.
_STEADY_SECONDS = 5
_PAUSE_SECONDS = 0.5
# The number after which systemd itself would give up, if units did not say otherwise (StartLimitBurst=).
_MOST_ENDS = 5
_LINE = 500


@dataclass(frozen=True)
class Wellness:
    """What was seen: the daemon's version, the checks that are not well with what they say, and the facade's answer."""

    version: str
    failing: dict[str, str]
    facade: int

    @property
    def serves(self) -> bool:
        # 503 is an answer of a facade that reports what it hears from the daemon.
        return bool(self.version) and self.facade in (200, 503)


@dataclass(frozen=True)
class _Run:
    """One start of a program, by systemd's name for it, and how often systemd has started it again."""

    invocation: str
    ends: int


def look(release: Release) -> Wellness:
    """What the running programs say; empty where they do not answer."""
    version, failing = "", {}
    try:
        done = subprocess.run(
            [release.program("medforgectl"), "status", "-o", "json"],
            check=False, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told = json.loads(done.stdout)
        version = told["version"]
        failing = {check["name"]: check["message"] for check in told["checks"] if check["health"] != "ok"}
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):
        pass
    return Wellness(version, failing, _facade())


def restart(unit: str) -> None:
    """Start a program anew, and wait until it says that it is ready. Raises Failure with what it said last, or what
    systemd says of one that said nothing."""
    since = int(time.time())
    try:
        run(["systemctl", "restart", unit])
    except Failure as error:
        raise Failure(f"{unit} does not start" + (_last_words([unit], since) or f": {error}"), 1) from error


def await_well(release: Release, before: Wellness | None) -> Wellness:
    """Wait until the release serves and nothing is worse than before it. Raises Failure with what is wrong and what
    its programs said last.

    Without a before, at a first installation, what the host lacks is for the operator to see and no failure.
    """
    since = int(time.time())
    deadline = time.monotonic() + _PATIENCE_SECONDS
    steady_since: tuple[float, dict[str, _Run]] | None = None
    first = _runs()
    while True:
        found = look(release)
        problem = _problem(release, before, found)
        runs = _runs()
        now = time.monotonic()
        if problem:
            steady_since = None
        elif steady_since is None or steady_since[1] != runs:
            steady_since = (now, runs)
        elif now - steady_since[0] >= _STEADY_SECONDS:
            return found
        # Nobody waits for minutes where waiting does not help: people do without the site meanwhile.
        if ending := [unit for unit, one in runs.items() if one.ends - first[unit].ends >= _MOST_ENDS]:
            raise Failure(f"{' and '.join(ending)} ended {_MOST_ENDS} times" + _last_words(ending, since))
        if now > deadline:
            told = problem or "its programs end again and again; see `journalctl -u medforged -u medforge-facade`"
            raise Failure(told + _last_words(list(runs), since))
        time.sleep(_PAUSE_SECONDS)


def _problem(release: Release, before: Wellness | None, found: Wellness) -> str:
    if not found.version:
        return "the daemon does not answer; see `journalctl -u medforged`"
    if found.version != release.version:
        return f"the daemon that answers is {found.version}"
    if not found.serves:
        return "the facade does not answer; see `journalctl -u medforge-facade`"
    if before is not None and (
        worse := {name: text for name, text in found.failing.items() if name not in before.failing}
    ):
        return "; ".join(f"{name} is not well: {text}" for name, text in worse.items())
    return ""


def _last_words(units: list[str], since: int) -> str:
    """The latest line of each program in the journal, where it has said anything since then (seconds of the epoch)."""
    lines = []
    for unit in units:
        # By the unit's own processes: systemd's lines about it say only that it has ended.
        said = run(
            ["journalctl", "--quiet", "--output=cat", "--lines=1", f"--since=@{since}", f"_SYSTEMD_UNIT={unit}"],
            check=False,
        ).strip()
        if said:
            # Whatever it is, it does nothing to a terminal.
            line = "".join(character if character.isprintable() else " " for character in said[:_LINE])
            lines.append(f"\n  {unit} said last: {line}")
    return "".join(lines)


def _runs() -> dict[str, _Run]:
    """Each program's."""
    return {unit: _run_of(unit) for unit in (places.DAEMON, places.FACADE)}


def _run_of(unit: str) -> _Run:
    told = run(["systemctl", "show", "--property=InvocationID,NRestarts", unit], check=False)
    values = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    return _Run(values.get("InvocationID", ""), int(values.get("NRestarts", "0")))


def _facade() -> int:
    """The status that the facade's health page answers; 0 where nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        try:
            probe.connect(str(_FACADE_SOCKET))
            probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = probe.recv(32).split()
            return int(answer[1]) if len(answer) > 1 else 0
        except (OSError, ValueError):
            return 0
