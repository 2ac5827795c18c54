"""Owns trying, with ordinary sockets, what gets from one network namespace to another. The product's probe is not used.

Silence is judged after a fixed wait; whatever gets through at all does so in less than a hundredth of it. What is
expected to get through is waited for longer, since the machine may be busy.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from tests.host.isolation_world import Station

SILENCE_SECONDS = 0.4
PATIENCE_SECONDS = 10.0
# Whatever a neighbour can try; `reaches` returns the subset that got through.
EVERYTHING = frozenset({"TCP 8080", "TCP", "UDP", "ICMP", "broadcast", "TCP6", "UDP6", "ICMP6"})
_OVERFLOW_USER = 65534


@dataclass
class Ears:
    """Listening sockets of a station, closed with the stack."""

    tcp: socket.socket
    udp: socket.socket
    tcp6: socket.socket
    udp6: socket.socket

    @classmethod
    def of(cls, stack: contextlib.ExitStack, station: Station) -> Ears:
        def listen(family: int, kind: int) -> socket.socket:
            made = socket.socket(family, kind)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(("", 0))
            if kind == socket.SOCK_STREAM:
                made.listen(64)
            made.setblocking(False)
            return stack.enter_context(made)

        tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
        return cls(
            *(
                station.run(lambda family=family, kind=kind: listen(family, kind))
                for family in (socket.AF_INET, socket.AF_INET6)
                for kind in (tcp, udp)
            )
        )


def reaches(source: Station, target: Station, expected: frozenset[str] = frozenset()) -> frozenset[str]:
    """Try all of EVERYTHING at once."""
    with contextlib.ExitStack() as stack:
        ears = Ears.of(stack, target)
        link_local = target.run(lambda: _link_local("eth0"))
        token = secrets.token_bytes(16)

        def attempt() -> frozenset[str]:
            scope = socket.if_nametoindex("eth0")
            calls = {
                "TCP 8080": _connecting(stack, (str(target.address), 8080)),
                "TCP": _connecting(stack, (str(target.address), ears.tcp.getsockname()[1])),
                "TCP6": _connecting(stack, (link_local, ears.tcp6.getsockname()[1], 0, scope)),
            }
            _send(token + b"unicast", (str(target.address), ears.udp.getsockname()[1]))
            _send(token + b"broadcast", ("255.255.255.255", ears.udp.getsockname()[1]))
            _send(token + b"unicast", (link_local, ears.udp6.getsockname()[1], 0, scope))
            pings = {
                "ICMP": _pinging(stack, (str(target.address), 0)),
                "ICMP6": _pinging(stack, (link_local, 0, 0, scope)),
            }
            began = time.monotonic()
            got: set[str] = set()
            while _goes_on(began, done=got == EVERYTHING, missing=not got >= expected):
                got |= {name for name, call in (*calls.items(), *pings.items()) if call()}
                heard = {*_heard(ears.udp, token)}
                got |= {name for name, word in (("UDP", b"unicast"), ("broadcast", b"broadcast")) if word in heard}
                got |= {"UDP6"} if b"unicast" in _heard(ears.udp6, token) else set()
            return frozenset(got)

        return source.run(attempt)


def answered_ports(
    source: Station, address: IPv4Address, ports: Iterable[int], expected: Iterable[int] = ()
) -> frozenset[int]:
    """The TCP ports from which anything came back, be it an acceptance or a refusal."""
    awaited = frozenset(expected)

    def attempt() -> frozenset[int]:
        with contextlib.ExitStack() as stack:
            calls = {port: _connecting(stack, (str(address), port)) for port in ports}
            began = time.monotonic()
            got: set[int] = set()
            while _goes_on(began, done=len(got) == len(calls), missing=not got >= awaited):
                got |= {port for port, call in calls.items() if port not in got and call()}
            return frozenset(got)

    return source.run(attempt)


def connects(source: Station | None, address: IPv4Address | str, port: int, seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether a TCP connection is made; None stands for the host and its root user."""
    return lost_packets(source, address, port, seconds) is not None


def silent(source: Station | None, address: IPv4Address | str, port: int) -> bool:
    """Whether no TCP connection is made."""
    return not connects(source, address, port, SILENCE_SECONDS)


def lost_packets(
    source: Station | None, address: IPv4Address | str, port: int, seconds: float = PATIENCE_SECONDS
) -> int | None:
    """How often a packet had to be sent again until a TCP connection was made; None when none was."""

    def attempt() -> int | None:
        try:
            with socket.create_connection((str(address), port), timeout=seconds) as made:
                (again,) = struct.unpack_from("=I", made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)
                return int(again)
        except OSError:
            return None

    return attempt() if source is None else source.run(attempt)


def connects_as_other_user(address: IPv4Address | str, port: int) -> str:
    """What another user of the host gets: "connected", or the name of the error."""
    program = (
        "import errno, socket, sys\n"
        "try:\n"
        f"    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout={PATIENCE_SECONDS})\n"
        "    print('connected')\n"
        "except OSError as error:\n"
        "    print(errno.errorcode.get(error.errno, 'timeout'))\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", program, str(address), str(port)]
    user = {"user": _OVERFLOW_USER, "group": _OVERFLOW_USER, "extra_groups": []}
    return subprocess.run(argv, capture_output=True, check=True, text=True, timeout=20, cwd="/", **user).stdout.strip()


def sends_datagram(
    source: Station | None, address: IPv4Address | str, listener: socket.socket, seconds: float = PATIENCE_SECONDS
) -> bool:
    """Whether a datagram arrives at a listening socket."""
    token = secrets.token_bytes(16)

    def attempt() -> None:
        _send(token + b"unicast", (str(address), listener.getsockname()[1]))

    attempt() if source is None else source.run(attempt)
    return _ready(listener, select.POLLIN, seconds) and b"unicast" in _heard(listener, token)


def pings(source: Station, address: IPv4Address | str, seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether an echo request is answered."""

    def attempt() -> bool:
        with contextlib.ExitStack() as stack:
            answered = _pinging(stack, (str(address), 0))
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if answered():
                    return True
                time.sleep(0.005)
            return False

    return source.run(attempt)


def _goes_on(began: float, *, done: bool, missing: bool) -> bool:
    """Whether to look once more, after a moment: until all is there, or what is missing has had its time."""
    time.sleep(0.005)
    return not done and time.monotonic() < began + (PATIENCE_SECONDS if missing else SILENCE_SECONDS)


def _connecting(stack: contextlib.ExitStack, address: tuple[object, ...]) -> Callable[[], bool]:
    """Begin a connection; the answer says whether anything has come back."""
    made = stack.enter_context(socket.socket(_family(address), socket.SOCK_STREAM))
    made.setblocking(False)
    begun = made.connect_ex(address)
    if begun == errno.ECONNREFUSED:
        return lambda: True
    if begun != errno.EINPROGRESS:
        return lambda: False

    outcomes: list[int] = []

    def answered() -> bool:
        # The outcome can be read once: from then on the socket says that there was no error.
        if not outcomes and _ready(made, select.POLLOUT, 0):
            outcomes.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return outcomes in ([0], [errno.ECONNREFUSED])

    return answered


def _pinging(stack: contextlib.ExitStack, address: tuple[object, ...]) -> Callable[[], bool]:
    v6 = _family(address) == socket.AF_INET6
    made = stack.enter_context(
        socket.socket(_family(address), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
    )
    made.setblocking(False)
    token = secrets.token_bytes(16)
    head = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 7, 7)
    total = sum(struct.unpack("!12H", head + token))
    total = (total & 0xFFFF) + (total >> 16)
    # The kernel fills in the checksum of ICMPv6.
    with contextlib.suppress(OSError):
        made.sendto(head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:] + token, address)
    seen: list[bytes] = []

    def answered() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.append(made.recv(4096))
        kind = (lambda data: data[0] == 129) if v6 else (lambda data: data[20] == 0)
        return any(token in data and kind(data) for data in seen)

    return answered


def _ready(one: socket.socket, event: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(one, event)
    return bool(waiting.poll(seconds * 1000))


def _send(data: bytes, address: tuple[object, ...]) -> None:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as made, contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.sendto(data, address)


def _heard(listener: socket.socket, token: bytes) -> Sequence[bytes]:
    heard = []
    with contextlib.suppress(BlockingIOError):
        while True:
            data = listener.recv(4096)
            if data.startswith(token):
                heard.append(data.removeprefix(token))
    return heard


def _family(address: tuple[object, ...]) -> int:
    return socket.AF_INET6 if len(address) == 4 else socket.AF_INET


def _link_local(device: str) -> str:
    """The link-local address of an interface of the calling thread's namespace."""
    with Path("/proc/thread-self/net/if_inet6").open(encoding="ascii") as lines:
        for line in lines:
            digits, _index, _length, scope, _flags, name = line.split()
            if name == device and scope == "20":
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
    raise AssertionError(f"{device} has no IPv6 link-local address")
