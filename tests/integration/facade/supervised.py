"""A supervisor whose workers are scripted by files, for what real workers do too seldom.

    supervised.py FOLDER WORKERS HUNG_SECONDS STOP_SECONDS

In the folder, `dies` ends each worker that starts with the code that it has, `deaf` makes a worker ignore SIGTERM, and
`unprepared` is the exit code of the preparation. Each worker that starts appends a line to `starts`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from facade.notify import Notifier
from facade.workers.supervisor import Supervisor
from medforged import logs


def main(folder: Path, count: int, hung_seconds: float, stop_seconds: float) -> int:
    def work(number: int, channel: socket.socket) -> int:
        with (folder / "starts").open("a") as starts:
            starts.write(json.dumps({"worker": number, "pid": os.getpid(), "at": time.monotonic()}) + "\n")
        if (folder / "dies").exists():
            return int((folder / "dies").read_text())
        asked = [False]
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN if (folder / "deaf").exists() else lambda *_: asked.__setitem__(0, True)
        )
        channel.send(b"READY=1")
        channel.setblocking(True)
        while not asked[0]:
            channel.settimeout(0.02)
            try:
                if channel.recv(1) == b"":
                    return 0
            except TimeoutError:
                channel.send(b"WATCHDOG=1")
        channel.send(b"STOPPING=1")
        return 0

    def prepare() -> int:
        path = folder / "unprepared"
        return int(path.read_text()) if path.exists() else 0

    logs.configure("json")
    return Supervisor(
        count,
        prepare,
        work,
        Notifier.to_systemd(os.environ),
        stop_seconds=stop_seconds,
        beat_seconds=0.05,
        hung_seconds=hung_seconds,
    ).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
