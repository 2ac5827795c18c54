"""A program for a keeper: answers every connection with its pid; what it does otherwise is scripted by files.

In the folder that its argument names: `dies` ends it at once with the code that the file has, `lingers` keeps it from ending
while the file is there, `deaf` makes it ignore SIGTERM. Each start appends a line to `starts`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    names = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC")
    told = {name: os.environ.get(name) for name in names}
    with (folder / "starts").open("a") as starts:
        starts.write(json.dumps({"pid": os.getpid(), "at": time.monotonic(), **told}) + "\n")
    if (folder / "dies").exists():
        sys.exit(int((folder / "dies").read_text()))
    count = int(os.environ["LISTEN_FDS"])
    listeners = [socket.socket(fileno=number) for number in range(3, 3 + count)]
    asked, ask = socket.socketpair()
    ask.setblocking(False)
    signal.set_wakeup_fd(ask.fileno())
    signal.signal(signal.SIGTERM, signal.SIG_IGN if (folder / "deaf").exists() else lambda *_: None)
    tell("READY=1")
    with selectors.DefaultSelector() as waiting:
        for listener in listeners:
            waiting.register(listener, selectors.EVENT_READ)
        waiting.register(asked, selectors.EVENT_READ)
        while asked not in (ready := [key.fileobj for key, _ in waiting.select()]):
            for listener in set(listeners) & set(ready):
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue  # another program of the same socket was faster
                with connection:
                    connection.sendall(str(os.getpid()).encode())
    for listener in listeners:
        listener.close()
    tell("STOPPING=1")
    while (folder / "lingers").exists():
        time.sleep(0.01)


def tell(state: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(state.encode(), "\0" + os.environ["NOTIFY_SOCKET"][1:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
