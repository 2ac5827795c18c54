"""`medforgectl cleanup`: what no record explains, what --force removes of it, and what stays whatever is asked."""

from __future__ import annotations

import msgspec
import pytest

from medforged.contract.errors import ErrorCode
from medforged.contract.orphans import Orphan, OrphanKind, OrphanList
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration

CONTAINER = Orphan(kind=OrphanKind.CONTAINER, name="mf-session-zzzz2345", reason="its label names no session")
FULL = Orphan(kind=OrphanKind.DATASET, name="tank/medforge/workspaces/u/full", reason="no session is recorded")
EMPTY = Orphan(kind=OrphanKind.DATASET, name="tank/medforge/workspaces/u/empty", reason="no session is recorded")
HOLDS_FILES = "cannot remove it: it has files"


def cells(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.splitlines()]


def test_nothing_to_clean_up(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    for arguments in ([], ["--force"]):
        done = medforgectl("cleanup", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "Nothing was found that no record explains.\n"
    assert not daemon.called("orphans.remove")


def test_without_force_they_are_only_listed(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.orphans = [CONTAINER, FULL]
    done = medforgectl("cleanup", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert cells(done.stdout) == [
        ["KIND", "NAME", "REASON"],
        ["container", CONTAINER.name, CONTAINER.reason],
        ["dataset", FULL.name, FULL.reason],
        [],
        ["2 orphans; see medforgectl cleanup --help for what --force removes."],
    ]
    assert [call.method for call in daemon.calls] == ["orphans.list"]


def test_force_removes_and_tells_what_was_kept(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.orphans = [CONTAINER, EMPTY, FULL]
    daemon.kept = {FULL.name: HOLDS_FILES}
    done = medforgectl("cleanup", "--force")
    assert (done.returncode, done.stderr) == (0, "")
    assert cells(done.stdout) == [
        ["KIND", "NAME", "OUTCOME", "MESSAGE"],
        ["container", CONTAINER.name, "removed", CONTAINER.reason],
        ["dataset", EMPTY.name, "removed", EMPTY.reason],
        ["dataset", FULL.name, "kept", HOLDS_FILES],
        [],
        ["3 orphans: 2 removed, 1 kept."],
    ]
    assert daemon.orphans == [FULL]


@pytest.mark.parametrize("kind", [kind for kind in OrphanKind if kind is not OrphanKind.DATASET])
def test_what_cannot_be_removed_is_a_failure(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, kind: OrphanKind
) -> None:
    stuck = Orphan(kind=kind, name="stuck", reason="it is nobody's")
    daemon.orphans = [stuck]
    daemon.kept = {"stuck": "cannot remove it: it is busy"}
    for arguments in ([], ["-o", "json"]):
        done = medforgectl("cleanup", "--force", *arguments)
        assert (done.returncode, done.stderr) == (1, "")
        assert "cannot remove it: it is busy" in done.stdout
    assert medforgectl("cleanup").returncode == 0


@pytest.mark.parametrize("arguments", [[], ["--force"]])
@pytest.mark.parametrize("orphans", [[], [CONTAINER]])
def test_what_could_not_be_looked_at_is_a_failure(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, arguments: list[str], orphans: list[Orphan]
) -> None:
    daemon.orphans = orphans
    daemon.problems = ["cannot list datasets:\n the pool \x1b[31m is suspended"]
    done = medforgectl("cleanup", *arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == r"Problem: cannot list datasets: the pool \x1b[31m is suspended"
    done = medforgectl("cleanup", *arguments, "-o", "json")
    assert done.returncode == 1
    assert msgspec.json.decode(done.stdout, type=OrphanList).problems == daemon.problems


def test_json_is_the_contracts_own(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.orphans = [CONTAINER, FULL]
    daemon.kept = {FULL.name: HOLDS_FILES}
    done = medforgectl("cleanup", "-o", "json")
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout, type=OrphanList) == OrphanList(orphans=[CONTAINER, FULL], problems=[])
    done = medforgectl("cleanup", "--force", "-o", "json")
    assert done.returncode == 0
    fates = [
        msgspec.structs.replace(CONTAINER, removed=True),
        msgspec.structs.replace(FULL, message=HOLDS_FILES),
    ]
    assert msgspec.json.decode(done.stdout, type=OrphanList) == OrphanList(orphans=fates, problems=[])


def test_names_are_shown_and_not_obeyed(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.orphans = [Orphan(kind=OrphanKind.PORT, name="veth\x1b[2J", reason="\x9b31mnobody's\u202e")]
    for arguments in ([], ["--force"]):
        done = medforgectl("cleanup", *arguments)
        assert done.returncode == 0
        assert r"veth\x1b[2J" in done.stdout
        assert r"\x9b31mnobody's\u202e" in done.stdout


def test_a_removal_that_is_refused(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.orphans = [CONTAINER]
    daemon.refuse("orphans.remove", ErrorCode.SHUTTING_DOWN, "the daemon is stopping; try again")
    done = medforgectl("cleanup", "--force")
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "medforgectl: the daemon is stopping; try again\n")


def test_the_help_says_what_is_never_destroyed_and_how_one_would(medforgectl: Medforgectl) -> None:
    shown = " ".join(medforgectl("cleanup", "--help").stdout.split())
    assert "A workspace that holds anything, files or snapshots, is never destroyed" in shown
    assert "zfs destroy -r NAME" in shown
