"""A facade that is replaced under load, again and again, behind its keeper: nobody is refused and nothing is lost.

`MEDFORGE_ROLLING_RESTARTS` sets how often (3); releases are tried with 20.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.daemon import fake_daemon, make_session
from tests.integration.facade.load import Load, proxy, signed_up, until_known
from tests.integration.facade.program import PROGRAM, ROOT, Program, answers, gone, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RESTARTS = int(os.environ.get("MEDFORGE_ROLLING_RESTARTS", "3"))


def kept(program: Program, pid_file: Path, log: Path) -> subprocess.Popen[str]:
    """A keeper of the program."""
    argv = [sys.executable, str(ROOT / "ops" / "lib" / "keeper.py"), "--overlap"]
    argv += ["--socket", str(program.socket), "--pid-file", str(pid_file), "--", *PROGRAM, "--config"]
    with log.open("wb") as out:
        return subprocess.Popen([*argv, str(program.config)], cwd=ROOT, stdout=out, stderr=out, text=True)


def serving(pid_file: Path) -> int:
    """The program that serves, as its keeper says."""
    return int(pid_file.read_text().split()[0])


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_is_lost_or_refused(program: Program, workers: int) -> None:
    program.write(process={"workers": workers}, listen={"drain_seconds": 10.0})
    pid_file, log = program.directory / "facade.pid", program.directory / "log"
    async with fake_daemon(program.directory / "medforged.sock") as daemon:
        keeper = kept(program, pid_file, log)
        try:
            await asyncio.to_thread(until, answers(program.socket, b"200"), keeper, 120)
            user_id, token = await signed_up(program.socket)
            session = await daemon.put(make_session(user_id))
            await until_known(program.socket, session.slug, token)
            async with Load(program.socket).running(proxy(session.slug, token)) as load:
                for _ in range(RESTARTS):
                    before = serving(pid_file)
                    keeper.send_signal(signal.SIGHUP)
                    await asyncio.to_thread(until, partial(_replaced, pid_file, before), keeper, 120)
                    await load.more(50)
            print(f"{load.answered} answers across {RESTARTS} restarts with {workers} workers")
            assert load.failures == [], log.read_text()[-4000:]
            assert "worker.ended" not in log.read_text()
        finally:
            keeper.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(keeper.wait, 30)
            keeper.kill()
            keeper.wait()


def _replaced(pid_file: Path, before: int) -> bool:
    """Whether another one serves, and this one has ended: what it had to lose is lost by then."""
    return serving(pid_file) != before and gone(before)
