"""Owns sending cases byte for byte, over HTTP/1.1 and HTTP/2, and reading no more of the answers than a test needs."""

from __future__ import annotations

import contextlib
import socket
import ssl
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.host.caddy_site import CaddySite, Message, Wire
from tests.host.public_cases import Case

LIMIT_SECONDS = 20.0


class Plain:
    """HTTP/1.1 over TLS; one connection for as long as it is good for another request."""

    def __init__(self, site: CaddySite) -> None:
        self._site = site
        self._wire: Wire | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def send(self, case: Case) -> int | None:
        """The status of the answer; None if there was none."""
        head = self._ask(case)
        return head.status if head is not None else None

    def _ask(self, case: Case) -> Message | None:
        if not case.clean:
            self.close()
        wire = self._wire or Wire(connect(self._site, "http/1.1"))
        self._wire = wire
        try:
            wire.send(case.raw)
            head = wire.head()
            while head is not None and head.status < 200:
                head = wire.head()
            if head is not None and case.method != "HEAD" and head.status not in (204, 304):
                wire.body(head, to_end=True)
        except (OSError, ValueError):
            head = None
        ended = head is None or (head.value("Connection") or "").lower() == "close"
        if ended or not case.clean:
            self.close()
        return head


def connect(site: CaddySite, protocol: str, name: str = "medforge.localhost") -> ssl.SSLSocket:
    """A verified TLS connection that speaks `protocol`."""
    context = ssl.create_default_context(cafile=str(site.authority))
    context.set_alpn_protocols([protocol])
    sock = socket.create_connection(("127.0.0.1", site.port), LIMIT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wrapped = context.wrap_socket(sock, server_hostname=name)
    assert wrapped.selected_alpn_protocol() == protocol
    return wrapped


class Multiplexed:
    """HTTP/2 without any of the checks that keep a client from sending nonsense."""

    def __init__(self, site: CaddySite) -> None:
        self._site = site
        self._sock: ssl.SSLSocket | None = None
        self._connection: h2.connection.H2Connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def send(self, pairs: tuple[tuple[str, str], ...]) -> int | None:
        """The status of the answer; None if the stream or the connection was ended instead."""
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            return self._ask(pairs)
        self.close()
        return None

    def _ask(self, pairs: tuple[tuple[str, str], ...]) -> int | None:
        sock = self._open()
        stream = self._connection.get_next_available_stream_id()
        self._connection.send_headers(stream, [(n.encode(), v.encode()) for n, v in pairs], end_stream=True)
        sock.sendall(self._connection.data_to_send())
        status: int | None = None
        while True:
            data = sock.recv(65536)
            if not data:
                self.close()
                return status
            for event in self._connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.ConnectionTerminated):
                    self.close()
                    return status
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) and event.stream_id == stream:
                    sock.sendall(self._connection.data_to_send())
                    return status
            sock.sendall(self._connection.data_to_send())

    def _open(self) -> ssl.SSLSocket:
        if self._sock is None:
            self._sock = connect(self._site, "h2")
            self._connection = h2.connection.H2Connection(
                h2.config.H2Configuration(
                    validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
                )
            )
            self._connection.initiate_connection()
            self._sock.sendall(self._connection.data_to_send())
        return self._sock
