"""A MariaDB server of the test run's own: Debian's binaries, a folder for its data, a Unix socket, no network."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncmy

__all__ = ["Server", "missing"]

INSTALL = "mariadb-install-db"
# Not in the search path of everybody but root.
SERVER = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
START_SECONDS = 60
# As small as the server allows, and without the disk's patience: what is tested is not that the server is durable.
SMALL = (
    "--innodb-buffer-pool-size=24M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--performance-schema=off",
    "--skip-log-bin",
    "--aria-pagecache-buffer-size=8M",
    "--key-buffer-size=1M",
    "--max-connections=200",
)


def missing() -> str:
    """Why no server can be started here; empty when one can."""
    if SERVER is None or shutil.which(INSTALL) is None or shutil.which("my_print_defaults") is None:
        return "MariaDB is not installed (apt-get install mariadb-server-core mariadb-client-core)"
    return ""


class Server:
    """Started by `start`, ended by `close`. Its administrator is the user that runs the tests, by socket."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="medforge-mariadb-"))
        self.path = self.directory / "server.sock"
        self.log = self.directory / "server.log"
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._process: subprocess.Popen[bytes] | None = None
        self._idle: list[str] = []
        self._lent = 0
        # The server refuses to run as root.
        self._runner = "nobody" if os.geteuid() == 0 else self.user
        if os.geteuid() == 0:
            self.directory.chmod(0o711)
            runner = pwd.getpwnam(self._runner)
            os.chown(self.directory, runner.pw_uid, runner.pw_gid)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def install(self) -> None:
        """Make the system's tables; takes a second or two."""
        done = subprocess.run(
            [
                INSTALL,
                "--no-defaults",
                f"--datadir={self.directory / 'data'}",
                f"--user={self._runner}",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={self.user}",
                "--skip-test-db",
                "--skip-name-resolve",
                *SMALL,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, options: Sequence[str] = ("--skip-networking",)) -> None:
        """Start it and wait until it answers; the same data are there as before."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(SERVER),
                    "--no-defaults",
                    f"--datadir={self.directory / 'data'}",
                    f"--socket={self.path}",
                    f"--pid-file={self.directory / 'server.pid'}",
                    f"--user={self._runner}",
                    *SMALL,
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def borrow(self) -> str:
        """The name of a database without rows: a new one, or one that was given back."""
        if self._idle:
            return self._idle.pop()
        self._lent += 1
        await self.execute(f"CREATE DATABASE lent{self._lent} CHARACTER SET latin1")
        return f"lent{self._lent}"

    async def give_back(self, name: str, *tables: str) -> None:
        """Whoever borrows it next finds the tables as they are and empty, but for the revision at its start."""
        present = {row[0] for row in await self.execute("SHOW TABLES", database=name)}
        if not present >= set(tables):
            await self.execute(f"DROP DATABASE {name}")
            return
        emptied = [f"DELETE FROM {table}" for table in tables]
        start = "INSERT INTO login_revisions (id, revision) VALUES (1, 0)"
        await self.execute("SET foreign_key_checks = 0", *emptied, start, database=name)
        self._idle.append(name)

    def keep(self, path: Path) -> Path:
        """A copy of a file that the server can read."""
        kept = self.directory / path.name
        shutil.copyfile(path, kept)
        if os.geteuid() == 0:
            os.chown(kept, pwd.getpwnam(self._runner).pw_uid, -1)
        return kept

    def url(self, database: str, user: str = "", password: str = "", **options: str) -> str:
        """A URL of the administrator's or another user's, by the socket."""
        who = f"{user}:{password}" if password else user or self.user
        query = "&".join(f"{name}={value}" for name, value in {"unix_socket": str(self.path), **options}.items())
        return f"mysql+asyncmy://{who}@/{database}?{query}"

    async def execute(self, *statements: str, database: str | None = None) -> list[Any]:
        """Run statements as the administrator; returns the rows of the last one."""
        async with (
            asyncmy.connect(
                unix_socket=str(self.path), user=self.user, database=database, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                await cursor.execute(statement)
            return list(await cursor.fetchall())

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.path)) == 0
