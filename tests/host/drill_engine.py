"""Owns a host apart whose engine may be killed: a network namespace with a dockerd of its own in it, gone at the end.

Its interfaces, packet filter and containers are nobody else's; files, mounts and processes are the host's.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.host import tiny_image
from tests.host.isolation_apart import process_apart

_READY_SECONDS = 60.0
# dockerd offers NVIDIA's GPUs where this program is; it is called before a container with one starts.
_NVIDIA_HOOK = "nvidia-container-runtime-hook"


class Engine:
    """`namespace` is a process of the network namespace. Raises TimeoutError when dockerd does not answer."""

    def __init__(self, directory: Path, namespace: int) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.enter = ("nsenter", f"--net=/proc/{namespace}/ns/net")
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        hook = directory / "bin" / _NVIDIA_HOOK
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexit 0\n")
        hook.chmod(0o755)
        (directory / "daemon.json").write_text("{}")

    def next_number(self) -> int:
        """One from 0 to 255 for what must not be shared, such as a subnet."""
        return next(self._numbers) % 256

    def start(self) -> None:
        self._forget_containerd()
        options = {
            "data-root": self.directory / "data",
            "exec-root": self.directory / "exec",
            "host": f"unix://{self.socket}",
            "pidfile": self.directory / "docker.pid",
            "config-file": self.directory / "daemon.json",
            "bridge": "none",
        }
        search = f"{self.directory / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        with (self.directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.enter,
                    "env",
                    f"PATH={search}",
                    "dockerd",
                    *(f"--{key}={value}" for key, value in options.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"dockerd: {(self.directory / 'dockerd.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL. Its containers go on until it is started again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM: it ends its containers first."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_READY_SECONDS)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def docker(self, *arguments: str, check: bool = True, stdin: bytes | None = None) -> str:
        """Run the docker command against this engine and return its output."""
        done = subprocess.run(
            ["docker", "--host", f"unix://{self.socket}", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=100,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program of the host inside the namespace and return its output."""
        done = subprocess.run([*self.enter, *argv], capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def load(self, image: tiny_image.TinyImage) -> None:
        """Bring an image of the host's engine here."""
        host = f"unix://{tiny_image.engine_socket()}"
        saved = subprocess.run(
            ["docker", "--host", host, "save", image.tag], capture_output=True, check=True, timeout=100
        )
        self.docker("load", stdin=saved.stdout)

    def close(self) -> None:
        """End it with all that it started, whatever state it is in."""
        if not self.running:
            self.start()
        for container in self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", container, check=False)
        self.terminate()

    def _forget_containerd(self) -> None:
        """Where nobody waits for orphans, the one that ended with a killed dockerd seems to live (moby's supervisor)."""
        note = self.directory / "exec" / "containerd" / "containerd.pid"
        if not note.exists():
            return
        process = Path("/proc", note.read_text().strip())
        deadline = time.monotonic() + _READY_SECONDS
        while process.exists() and " Z " not in (process / "stat").read_text():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{process} does not end")
            time.sleep(0.01)
        note.unlink()

    def _answers(self) -> bool:
        return bool(self.docker("version", "--format", "{{.Server.Version}}", check=False))


@contextlib.contextmanager
def engine_apart() -> Iterator[Engine]:
    """A running engine that has the tiny image."""
    image = tiny_image.ensure()
    # Short: the path of a Unix socket has at most 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="mfdrill-"))
    directory.chmod(0o711)
    try:
        with process_apart() as namespace:
            engine = Engine(directory, namespace)
            engine.run("ip", "link", "set", "lo", "up")
            try:
                engine.start()
                engine.load(image)
                yield engine
            finally:
                engine.close()
    finally:
        # What a killed dockerd had mounted, and its successor did not know of. The deepest first.
        for mount in sorted(_mounts_below(directory), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=True, timeout=30)
        shutil.rmtree(directory)


def _mounts_below(directory: Path) -> list[str]:
    points = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [point for point in points if point.startswith(f"{directory}/")]
