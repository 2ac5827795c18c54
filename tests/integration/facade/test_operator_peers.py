"""Who gets in at the operator socket: real processes of real users, with the socket's own mode as open as can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.facade.program import ROOT, Program, answers, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others"),
]

# Of nobody on this host; 65534 is the group that stands for the operators'.
FACADE, CADDY, STRANGER, OPERATOR = 54321, 54322, 54323, 54324
OPERATORS = 65534
PASSWORD = "nobody else has seen this"
FACADE_PROGRAM = [sys.executable, "-W", "error", "-c", "from facade.app import main; main()"]
CTL = [sys.executable, "-c", "from cli.main import main; main()"]


def become(uid: int, *groups: int) -> list[str]:
    named = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return [str(shutil.which("setpriv")), f"--reuid={uid}", f"--regid={uid}", named]


class Site:
    """A facade that runs as its own user, with an operator socket that root has opened for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operators = folder / "operators.sock"
        state = folder / "state"
        state.mkdir()
        os.chown(state, FACADE, FACADE)
        self.program = Program(state)
        self.program.write(process={"allow_privileged": False}, operators={"group": "nogroup"})
        self.program.config.chmod(0o644)

    def start(self, mode: str) -> subprocess.Popen[str]:
        listener = [sys.executable, str(ROOT / "ops" / "lib" / "listener.py"), "--socket", str(self.operators)]
        argv = [*listener, "--name", "operator", "--group", "nogroup", "--mode", mode, "--"]
        # As on a real host: in the operators' group, to reach the daemon, and in Caddy's.
        argv += [*become(FACADE, OPERATORS, CADDY), *FACADE_PROGRAM]
        running = self.program.start(argv=argv, env={**os.environ, "PYTHONPATH": str(ROOT)})
        until(answers(self.program.socket), running)
        return running

    def ctl(
        self, uid: int, *groups: int, arguments: tuple[str, ...] = ("users", "ls"), **options: str
    ) -> tuple[int, str]:
        """medforgectl as this user: its exit code, and what it said."""
        done = subprocess.run(
            [*become(uid, *groups), *CTL, "--operator-socket", str(self.operators), *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
            **({"stdin": subprocess.DEVNULL} if "input" not in options else options),  # type: ignore[call-overload]  # either
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="mf-peers-") as folder:
        Path(folder).chmod(0o755)
        made = Site(Path(folder))
        yield made
        made.program.close()


def test_root_and_operators_get_in_and_nobody_else(site: Site) -> None:
    running = site.start("0666")
    for uid, groups in ((0, ()), (OPERATOR, (OPERATORS,))):
        assert site.ctl(uid, *groups)[0] == 0
    for uid, groups in (
        (STRANGER, ()),
        (STRANGER, (CADDY, FACADE)),
        (CADDY, ()),
        (CADDY, (CADDY,)),
        # The facade itself: a public process that was taken over makes no admins by this way.
        (FACADE, (OPERATORS, CADDY)),
        (FACADE, ()),
    ):
        code, told = site.ctl(uid, *groups)
        assert (code, told) == (
            77,
            f"medforgectl: uid {uid} may not call users.list; run this as root or as a member of the operator group\n",
        )
    _, log = site.program.end(running)
    denied = [line for line in log.splitlines() if '"rpc.denied"' in line]
    assert len(denied) == 6
    assert f'"peer_uid": {FACADE}' in log


def test_the_sockets_mode_keeps_them_out_before_that(site: Site) -> None:
    site.start("0660")
    assert (site.operators.owner(), site.operators.group()) == ("root", "nogroup")
    assert site.ctl(OPERATOR, OPERATORS)[0] == 0
    for uid in (STRANGER, CADDY):
        code, told = site.ctl(uid)
        assert code == 77
        assert "permission denied" in told


def test_a_password_is_in_no_log_and_no_process_list(site: Site) -> None:
    running = site.start("0660")
    create = ("users", "create", "ada@example.org", "--admin", "--password-stdin")
    code, told = site.ctl(0, arguments=create, input=PASSWORD + "\n")
    assert (code, told) == (0, "Made ada@example.org: admin, enabled, 1 session at once.\n")
    code, told = site.ctl(0, arguments=("users", "password", "ada@example.org", "--generate"))
    made_up = told.partition("Password: ")[2].strip()
    assert (code, len(made_up)) == (0, 24)
    code, told = site.ctl(0, arguments=create, input=PASSWORD + "\n")
    assert code == 1
    assert PASSWORD not in told
    _, log = site.program.end(running)
    assert log.count('"rpc.call"') == 3
    for secret in (PASSWORD, made_up, "ada@example.org"):
        assert secret not in log
