"""Owns one virtual host: QEMU in software emulation, reached by SSH on loopback with a key of this run alone.

Times in it are 10 to 20 times those of a real host: it shows what works, never how fast.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import hostlab_disk
from common import Failure, run, say, succeeds
from processes import start_time

# One at a time on a host: it takes all cores.
HOME = Path(os.environ.get("MEDFORGE_HOSTLAB_HOME", "/var/tmp/medforge-hostlab"))
_MEMORY = "4G"
_POOL_BYTES = 4 * 1024**3
_BOOT_SECONDS = 600
_STOP_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """What a command in the machine came to."""

    code: int
    stdout: str
    stderr: str


class Machine:
    """A virtual host. Its folder has everything it is made of; a machine that runs can be found again by it."""

    def __init__(self, home: Path, on: str, pid: int, started: int, port: int) -> None:
        self.home = home
        # The distribution, by its name in hostlab_disk.DISTRIBUTIONS.
        self.on = on
        self.pid = pid
        # With the pid, tells the process from a later one of the same number.
        self._started = started
        self.port = port

    def ask(self, command: str, *, seconds: float = 300, stdin: bytes | None = None) -> Answer:
        """Run a shell command as root. Raises Failure when the machine does not answer or takes too long."""
        try:
            done = subprocess.run(
                [*self._ssh(), "root@127.0.0.1", command],
                check=False,
                capture_output=True,
                input=stdin if stdin is not None else b"",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"`{command[:200]}` did not end in the virtual host within {seconds:g} s") from error
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        # ssh's own failures; a command that ends with 255 by itself says something else.
        if done.returncode == 255 and ("ssh" in err.lower() or "connection" in err.lower()):
            raise Failure(f"the virtual host does not answer: {err.strip()}; its console: {self.console}")
        return Answer(done.returncode, out, err)

    def run(self, command: str, *, seconds: float = 300, stdin: bytes | None = None) -> str:
        """What a command writes to stdout. Raises Failure when it ends with anything but 0."""
        answer = self.ask(command, seconds=seconds, stdin=stdin)
        if answer.code != 0:
            raise Failure(
                f"`{command[:400]}` ended with {answer.code} in the virtual host:\n{answer.stdout}{answer.stderr}"
            )
        return answer.stdout

    def shell(self, command: str = "") -> list[str]:
        """The argument list of an interactive shell, or of a command."""
        return [*self._ssh(), *([] if command else ["-t"]), "root@127.0.0.1", *([command] if command else [])]

    def put(self, content: bytes | str, path: str, mode: str = "0644") -> None:
        """Write a file."""
        data = content.encode() if isinstance(content, str) else content
        quoted = shlex.quote(path)
        self.run(f"install -D -m {mode} /dev/stdin {quoted}", stdin=data)

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").strip()

    def reboot(self, *, abruptly: bool = False) -> None:
        """Start it anew, orderly or as if the power had been cut, and wait until it answers."""
        before = self.boot_id()
        command = "echo b >/proc/sysrq-trigger" if abruptly else "systemctl reboot"
        with contextlib.suppress(Failure):  # it may be gone before it has answered
            self.ask(f"(sleep 0.2; {command}) >/dev/null 2>&1 </dev/null & exit 0", seconds=60)
        self._forget_connection()
        self.until_answering(before)

    def until_booted(self) -> str:
        """Wait until systemd has started everything; `running`, or `degraded` where a unit has failed."""
        return self.ask("systemctl is-system-running --wait", seconds=_BOOT_SECONDS).stdout.strip()

    @property
    def console(self) -> Path:
        return self.home / "console.log"

    def alive(self) -> bool:
        return start_time(self.pid) == self._started

    def stop(self) -> None:
        """Take it down and forget its disks. Whatever it was doing is lost."""
        self._forget_connection()
        if self.alive():
            os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_SECONDS
            while self.alive():
                _reap(self.pid)
                if time.monotonic() > deadline:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.1)
        shutil.rmtree(self.home, ignore_errors=True)

    def _ssh(self) -> list[str]:
        return [
            "ssh", "-q", "-F", "/dev/null", "-i", str(self.home / "key"), "-p", str(self.port),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=30",
            "-o", f"ControlPath={self.home}/ssh", "-o", "ControlMaster=auto", "-o", "ControlPersist=600",
        ]  # fmt: skip

    def _forget_connection(self) -> None:
        succeeds([*self._ssh(), "-O", "exit", "root@127.0.0.1"])

    def until_answering(self, before: str = "") -> None:
        """Wait for a boot that is not the one before. Raises Failure."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            if not self.alive():
                said = (self.home / "qemu.log").read_text(errors="replace").strip()
                raise Failure(f"the virtual host has ended: {said or 'without a word'}; its console: {self.console}")
            if time.monotonic() > deadline:
                raise Failure(f"the virtual host did not answer within {_BOOT_SECONDS} s; its console: {self.console}")
            with contextlib.suppress(Failure):
                if self.boot_id() != before:
                    return
            self._forget_connection()
            time.sleep(1)


def running() -> Machine | None:
    """The machine that was left running, if there is one."""
    try:
        noted = json.loads((HOME / "machine.json").read_text())
    except (OSError, ValueError):
        return None
    machine = Machine(HOME, noted["on"], noted["pid"], noted["started"], noted["port"])
    return machine if machine.alive() else None


def start(luggage: Path, on: str) -> Machine:
    """Boot a new machine of this distribution with what is in a folder on a disk at /media/lab. Raises Failure."""
    if (other := running()) is not None:
        raise Failure(f"a virtual host runs already (pid {other.pid}); `ops/hostlab/run --down` ends it")
    parts = hostlab_disk.system(on)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(mode=0o700, parents=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", HOME / "key"])
    (luggage / "authorized_keys").write_text((HOME / "key.pub").read_text())
    hostlab_disk.luggage(HOME / "lab.img", luggage)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", parts.disk, HOME / "system.qcow2"])
    with (HOME / "pool.img").open("wb") as file:
        file.truncate(_POOL_BYTES)
    port = _free_port()
    say(f"booting the virtual host ({on})")
    pid = _spawn(_qemu(parts, port), HOME / "qemu.log")
    started = start_time(pid)
    if started is None:
        raise Failure(f"QEMU ended at once: {(HOME / 'qemu.log').read_text(errors='replace').strip()}")
    (HOME / "machine.json").write_text(json.dumps({"on": on, "pid": pid, "started": started, "port": port}))
    machine = Machine(HOME, on, pid, started, port)
    try:
        machine.until_answering()
        say(f"the virtual host is {machine.until_booted()}")
    except BaseException:  # whatever ended it, no machine is left behind
        kept = Path("/var/log/medforge-hostlab-console.log")
        if machine.console.exists():
            shutil.copyfile(machine.console, kept)
        machine.stop()
        raise
    return machine


def _qemu(parts: hostlab_disk.System, port: int) -> list[str]:
    """`-cpu max` is slower in emulation and trips over its own bugs.

    Mitigations are off: there is no processor to protect, and page tables that change with each system call empty the
    emulator's translations, which costs a third of all time (77 s against 51 for `python3 -m venv`).
    """
    cores = max(2, min(4, os.cpu_count() or 2))
    drives = [
        (HOME / "system.qcow2", "qcow2", "system", "off"),
        (HOME / "lab.img", "raw", "lab", "on"),
        (HOME / "pool.img", "raw", "pool", "off"),
    ]
    argv = [
        "qemu-system-x86_64", "-machine", "q35,usb=off", "-nodefaults", "-accel", "tcg,thread=multi", "-cpu", "Nehalem",
        "-m", _MEMORY, "-smp", str(cores), "-display", "none", "-serial", f"file:{HOME}/console.log",
        "-kernel", str(parts.kernel), "-initrd", str(parts.initrd),
        "-append", "console=ttyS0 root=/dev/vda rw panic=5 mitigations=off systemd.show_status=no net.ifnames=1",
        "-device", "virtio-rng-pci", "-device", "virtio-net-pci,netdev=lab,romfile=",
        "-netdev", f"user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
    ]  # fmt: skip
    for path, kind, serial, read_only in drives:
        argv += ["-drive", f"id={serial},file={path},if=none,format={kind},cache=unsafe,readonly={read_only}"]
        argv += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
    return argv


def _spawn(argv: list[str], log: Path) -> int:
    """The pid of a program that outlives this one where it is told to; subprocess warns of what nobody waits for."""
    return os.posix_spawnp(
        argv[0],
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # not ours: started by another run
        os.waitpid(pid, os.WNOHANG)
