"""Owns the facade's settings: every key, its unit and its default; docs/reference/configuration.md is made from it.

Read once at start by `load_settings`: `[section] key` in the TOML file, or `MEDFORGE_FACADE_<SECTION>__<KEY>` in the
environment, or one of the names in `ALIASES`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from medforged import configuration
from medforged.client import DEFAULT_SOCKET
from medforged.configuration import ConfigurationError
from medforged.logs import LogFormat

__all__ = [
    "ALIASES",
    "DEFAULT_PATH",
    "PREFIX",
    "Auth",
    "Daemon",
    "Database",
    "Limits",
    "Listen",
    "Metrics",
    "Operators",
    "Process",
    "Sessions",
    "Settings",
    "Site",
    "load_settings",
    "simulated",
    "tcp_address",
]

DEFAULT_PATH = Path("/etc/medforge/facade.toml")
PREFIX = "MEDFORGE_FACADE_"
# Names that the product's documents use for these settings.
ALIASES = {
    "COOKIE_SECURE": "auth.cookie_secure",
    "AUTH_IDLE_TTL_SECONDS": "auth.idle_ttl_seconds",
    "AUTH_MAX_TTL_SECONDS": "auth.max_ttl_seconds",
}

_DAY_SECONDS = 24 * 60 * 60
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
# What a counter holds, and what is precise enough in twentieths.
Limit = Annotated[int, msgspec.Meta(ge=1, le=65_000)]
WindowSeconds = Annotated[float, msgspec.Meta(ge=1, le=_DAY_SECONDS)]
# Lower-case ASCII labels (an internationalised name in its xn-- form), as they stand in a Host header.
Domain = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", max_length=200)
]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The names under which people reach the site."""

    domain: Domain = "localhost"
    """Everything lives under `medforge.<domain>`: the site, `api.` and the sessions' hosts."""
    https_port: Port = 443
    """The port that browsers use; part of allowed origins and of redirects."""
    web_root: str = "/usr/share/medforge/web"
    """Folder of the web UI's files, read once at start; empty serves none."""
    any_host: bool = False
    """Serve the web UI under every host name; for a trial without a proxy only."""
    development_origins: list[str] = []
    """Further origins that may change things, like `http://localhost:5173`."""


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests come in. Sockets that systemd passes come before both."""

    socket: str = "/run/medforge-facade/facade.sock"
    """Unix socket; used when `tcp` is empty."""
    socket_mode: Annotated[str, msgspec.Meta(pattern=r"^0?[0-7]{3}$")] = "0660"
    """Permissions of the Unix socket, in octal."""
    socket_group: str = ""
    """Group that owns the socket: the proxy's; empty keeps the facade's own."""
    operator_socket: str = ""
    """Unix socket for operators, of mode 0660 and `operators.group`, in a folder that the proxy does not see; empty
    opens none. One that systemd passes under the name `operator` comes before it."""
    tcp: str = ""
    """`host:port` instead of the Unix socket; for a trial without a proxy only."""
    trusted_proxies: list[str] = []
    """Addresses or networks of proxies whose `X-Forwarded-For` is believed over `tcp`, or in front of Caddy."""
    drain_seconds: Positive = 10.0
    """How long requests in progress may take to end after SIGTERM."""
    body_max_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1024**3)] = 64 * 1024
    """The largest request body."""
    body_seconds: Positive = 30.0
    """How long a request's body may take to arrive, besides a second for every 32 KiB of it."""


class Operators(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call the operator socket: root and a group."""

    group: str = "medforge"
    """The operators' group. The facade's own user is none of them, whatever its groups."""
    own_user: bool = False
    """Whether the facade's own user may call it too; for a trial in which one user runs everything."""


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """Cookies and logins."""

    cookie_secure: bool = True
    """Whether browsers send the cookie over HTTPS only; false is for a trial without TLS."""
    idle_ttl_seconds: Positive = 7 * _DAY_SECONDS
    """A login that is not used for so long has ended."""
    max_ttl_seconds: Positive = 30 * _DAY_SECONDS
    """A login ends so long after it was made, used or not."""
    device_ttl_seconds: Positive = 180 * _DAY_SECONDS
    """How long after signing in a browser is not locked out by strangers who try wrong passwords."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How often accounts and passwords may be tried in a sliding window; beyond it the answer is 429.

    A network is an IPv4 address or a /48 of IPv6, an address an IPv4 address or a /64. The defaults suit a classroom
    behind one address.
    """

    attempts_window_seconds: WindowSeconds = 300
    """The window of all attempts to sign up or in."""
    attempts_per_address: Limit = 300
    """Attempts from one address."""
    attempts_per_network: Limit = 1200
    """Attempts from one network; those of browsers and users who are known are counted apart, up to the same."""
    attempts_per_device: Limit = 60
    """Attempts of a browser at an account that it has signed in to before, and of a signed-in user who changes e-mail
    or password; not counted by address."""
    failures_window_seconds: WindowSeconds = 900
    """The window of wrong passwords."""
    failures_per_visitor: Limit = 10
    """Wrong passwords for one account from one network; browsers that have signed in to it do not count."""
    failures_per_account: Limit = 50
    """Wrong passwords for one account from everywhere; browsers that have signed in to it do not count."""
    failures_per_device: Limit = 10
    """Wrong passwords for an account from a browser that has signed in to it, and of a signed-in user for a change."""
    signups_window_seconds: WindowSeconds = 3600
    """The window of new accounts and e-mail addresses."""
    signups_per_network: Limit = 200
    """Attempts to make an account, or to give one another e-mail address, from one network; taken ones included."""
    tokens_window_seconds: WindowSeconds = 3600
    """The window of new API tokens."""
    tokens_per_user: Limit = 60
    """API tokens that a user makes."""


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """The facade's own database."""

    url: Annotated[str, msgspec.Meta(pattern=r"^(sqlite\+aiosqlite:///|mysql\+asyncmy://).+")] = (
        "sqlite+aiosqlite:////var/lib/medforge-facade/facade.db"
    )
    """A file, or a database of a MariaDB server: `mysql+asyncmy://USER@HOST/DATABASE`."""
    password_file: str = ""
    """File with MariaDB's password in its one line; without a folder it is the name of a systemd credential."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    """How many connections a process opens at most; requests that find none free wait in line."""

    def __repr__(self) -> str:
        # The URL may hold a password.
        return "Database(…)"


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """The way to the daemon."""

    socket: str = str(DEFAULT_SOCKET)
    """Where the daemon listens."""


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """What new accounts may do."""

    max_concurrent: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    """Sessions that a new account may have at once."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Where Prometheus reads (docs/how-to/monitor.md)."""

    listen: str = ""
    """Path of a Unix socket (mode 0660), or a loopback address like `127.0.0.1:9471`; empty: nowhere."""
    socket_group: str = ""
    """Group that owns the socket, whose members may read; empty keeps the facade's own."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The process itself."""

    log_format: LogFormat = "auto"
    """journal, json, console, or auto: the journal where standard error leads there, console on a terminal."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Processes that serve, behind one socket: one for each processor core that the facade may keep busy."""
    allow_privileged: bool = False
    """Start as root, or as a user that can open Docker's socket; for a trial on one's own machine only."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, one field a section."""

    site: Site = Site()
    listen: Listen = Listen()
    operators: Operators = Operators()
    auth: Auth = Auth()
    limits: Limits = Limits()
    database: Database = Database()
    daemon: Daemon = Daemon()
    sessions: Sessions = Sessions()
    process: Process = Process()
    metrics: Metrics = Metrics()


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings, checked as far as they can be without looking at the host. Raises ConfigurationError."""
    settings = configuration.load(path, Settings, environ, PREFIX, ALIASES)
    for origin in settings.site.development_origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"site.development_origins: {origin!r} is not an origin; "
                "write scheme://host[:port] in lower case and without a slash at its end"
            )
    if settings.auth.idle_ttl_seconds > settings.auth.max_ttl_seconds:
        raise ConfigurationError(
            "auth.idle_ttl_seconds is larger than auth.max_ttl_seconds and would never apply; lower it"
        )
    for network in settings.listen.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigurationError(
                f"listen.trusted_proxies: {error}; write an address or a network like 10.0.0.0/8 or fd00::/8"
            ) from error
    if settings.listen.tcp:
        tcp_address(settings.listen.tcp)
    _check_metrics(settings.metrics)
    return settings


def _check_metrics(metrics: Metrics) -> None:
    if not metrics.listen or metrics.listen.startswith("/"):
        return
    host, _ = tcp_address(metrics.listen, "metrics.listen")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigurationError(
            f"metrics.listen: {host} is not an address of this host alone, and metrics are not for the network; "
            "write 127.0.0.1:<port>, [::1]:<port> or the absolute path of a Unix socket"
        )


def tcp_address(text: str, setting: str = "listen.tcp") -> tuple[str, int]:
    """`host:port` or `[v6]:port`, told apart; `setting` is where it stands. Raises ConfigurationError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"{setting}: {text!r} is not an address; write host:port, like 127.0.0.1:8080")
    return host, int(port)


def simulated(settings: Settings, directory: Path) -> Settings:
    """The `--simulate` profile: no proxy, no TLS, no root; database and sockets in one directory."""
    replace = msgspec.structs.replace
    tcp = settings.listen.tcp or "127.0.0.1:8080"
    host, port = tcp_address(tcp)
    names = (f"medforge.{settings.site.domain}", "localhost", "127.0.0.1", host)
    origins = [f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}" for name in dict.fromkeys(names)]
    return replace(
        settings,
        site=replace(settings.site, any_host=True, development_origins=[*settings.site.development_origins, *origins]),
        listen=replace(settings.listen, tcp=tcp, operator_socket=str(directory / "operators.sock")),
        operators=replace(settings.operators, own_user=True),
        auth=replace(settings.auth, cookie_secure=False),
        database=Database(url=f"sqlite+aiosqlite:///{directory / 'facade.db'}"),
        daemon=Daemon(socket=str(directory / "medforged.sock")),
        process=replace(settings.process, allow_privileged=True),
    )
