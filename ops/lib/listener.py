"""Owns opening a Unix socket as whoever runs this, and becoming a program that inherits it, whoever that becomes.

    listener.py --socket PATH --name NAME [--mode 0660] [--group NAME] -- PROGRAM [ARGUMENT …]

The program finds the socket as sd_listen_fds(3) tells it, under the name. It stays the same process, so that a chain of
programs that each become the next, like setpriv, leads to the one that takes it. A socket that is there is replaced.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from common import UNAVAILABLE, Failure
from keeper_socket import listen

_FIRST_PASSED = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="listener.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--name", required=True, help="that the program knows it by")
    parser.add_argument("--mode", default="0660", help="of the socket, in octal")
    parser.add_argument("--group", default="", help="of the socket; one's own when empty")
    parser.add_argument("argv", nargs="+", metavar="program")
    options = parser.parse_args()
    try:
        listener = listen(options.socket, int(options.mode, 8), options.group, replace=True)
    except Failure as error:
        print(f"listener: cannot listen: {error}", file=sys.stderr)
        return error.code
    if listener.fileno() != _FIRST_PASSED:
        os.dup2(listener.fileno(), _FIRST_PASSED)
    os.set_inheritable(_FIRST_PASSED, True)
    passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": options.name}
    try:
        os.execvpe(options.argv[0], options.argv, {**os.environ, **passed})
    except OSError as error:
        print(f"listener: {options.argv[0]} cannot be started: {error.strerror}", file=sys.stderr)
    return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
