"""Owns the daemon's settings: every key, its unit and its default; docs/reference/configuration.md is made from it.

Read once at start by `load_settings`: `[section] key` in the TOML file, or `MEDFORGED_<SECTION>__<KEY>` in the
environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from medforged import configuration
from medforged.domain.containers import NetworkSpec
from medforged.domain.packs import DEFAULT_PACK_ID, Pack
from medforged.logs import LogFormat

__all__ = [
    "ALIASES",
    "DEFAULT_PATH",
    "PREFIX",
    "Adapters",
    "Containers",
    "Daemon",
    "Gpus",
    "Metrics",
    "NamedPack",
    "Network",
    "Packs",
    "Sessions",
    "Settings",
    "Workspaces",
    "load_settings",
    "network_of",
    "network_spec",
    "packs_of",
    "simulated",
]

DEFAULT_PATH = Path("/etc/medforge/medforged.toml")
PREFIX = "MEDFORGED_"
# Names that the product's documents use for these settings.
ALIASES = {
    "SESSION_POLL_INTERVAL_SECONDS": "sessions.poll_interval_seconds",
    "SESSION_POLL_BACKOFF_MAX_SECONDS": "sessions.poll_backoff_max_seconds",
    "PACK_IMAGE": "packs.default_image",
}

Positive = Annotated[float, msgspec.Meta(gt=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,19}$")]
_GIB = 1024**3


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """The process and its socket."""

    instance: Name = "medforge"
    """Tells this installation's containers and firewall chains from another's on the same host."""
    socket: str = "/run/medforge/medforged.sock"
    """Where the daemon listens; a socket that systemd passes comes before it."""
    socket_group: str = "medforge"
    """Group that owns the socket (mode 0660): operators, and the facade's user."""
    operator_group: str = "medforge"
    """Members may call every method."""
    facade_user: str = "medforge-facade"
    """The facade's user; it may call only what end users need, whatever groups it is in."""
    state_directory: str = "/var/lib/medforge"
    """Where the database lives."""
    log_format: LogFormat = "auto"
    """journal, json, console, or auto: the journal where standard error leads there, console on a terminal."""


class Adapters(msgspec.Struct, frozen=True, kw_only=True):
    """Which adapter serves each part. `auto` takes the real one where the host has it."""

    gpus: Literal["auto", "nvml", "simulated"] = "auto"
    """`auto` simulates only where no NVIDIA driver is installed."""
    workspaces: Literal["auto", "libzfs_core", "zfs", "directories", "simulated"] = "auto"
    """`auto` takes libzfs_core, else the `zfs` command, else directories."""
    containers: Literal["docker", "simulated"] = "docker"
    """Simulated containers are records: nothing runs in them."""
    isolation: Literal["iptables", "simulated"] = "iptables"
    """`iptables` stands for both layers, the packet filter and the bridge's."""


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """Discovery and watching of GPUs."""

    simulated_count: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 7
    """How many GPUs the simulated driver has."""
    poll_interval_seconds: Positive = 5.0
    """How often readings and health are refreshed, where no event of the driver comes first."""
    release_patience_seconds: Positive = 3.0
    """How long processes of an ended session may take to leave their GPU before it goes into quarantine."""


class Workspaces(msgspec.Struct, frozen=True, kw_only=True):
    """Where sessions' files live."""

    pool: str = "tank"
    """The ZFS pool; datasets are `<pool>/<root>/<user>/<session>`."""
    root: str = "medforge/workspaces"
    """The dataset below the pool that has all workspaces."""
    mount_root: str = ""
    """Where the root is mounted; empty means `/<pool>/<root>`."""
    directory: str = "/var/lib/medforge/workspaces"
    """Used only on a host without ZFS."""
    quota_bytes: Annotated[int, msgspec.Meta(ge=0)] = 50 * _GIB
    """Quota of each workspace in bytes; 0 means none."""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions' network."""

    name: str = "medforge-public-sessions"
    """Name of the Docker network; it is created where it is absent."""
    bridge: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,14}$")] = "mf-public"
    """Name of the bridge interface; at most 15 characters, the kernel's limit."""
    subnet: str = "172.30.0.0/24"
    """Between a /16 and a /26; an existing network is never changed."""
    proxy_address: str = "172.30.0.2"
    """Caddy's fixed address, the only one that may open a connection to a session."""


class Containers(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of each session's container, and patience with it."""

    docker_socket: str = "/var/run/docker.sock"
    """Where Docker Engine listens."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024**2)] = 16 * _GIB
    """Memory of each session, without swap on top."""
    shm_bytes: Annotated[int, msgspec.Meta(ge=1024**2)] = 2 * _GIB
    """Size of /dev/shm, which data loaders use."""
    cpus: Positive = 8.0
    """CPU cores, fractions allowed; a value above the host's number of cores is lowered to it."""
    pids: Annotated[int, msgspec.Meta(ge=64)] = 4096
    """Processes and threads of each session."""
    start_timeout_seconds: Positive = 60.0
    """How long a container may take from its start until its IDE answers."""
    stop_grace_seconds: Positive = 10.0
    """How long a container may take to end by itself before it is killed."""


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """Recovery of sessions."""

    poll_interval_seconds: Positive = 30.0
    """How often records and host are compared."""
    poll_backoff_max_seconds: Positive = 300.0
    """After failures the interval doubles up to this."""
    isolation_interval_seconds: Positive = 3.0
    """How often isolation is re-asserted."""
    isolation_probe_interval_seconds: Positive = 60.0
    """How often isolation is proven with live traffic as well."""
    starting_deadline_seconds: Positive = 180.0
    """A session that is not ready so long after its allocation is undone."""
    stopping_deadline_seconds: Positive = 300.0
    """A session whose container cannot be ended is ended without it after this long, and its GPU quarantined."""
    step_timeout_seconds: Positive = 90.0
    """The last limit of a single call to the host; the parts have shorter ones of their own."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Where Prometheus reads (docs/how-to/monitor.md)."""

    listen: str = ""
    """Path of a Unix socket (mode 0660) that answers `GET /metrics`; empty: none."""
    socket_group: str = "medforge"
    """Group that owns it, whose members may read."""


class NamedPack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An additional pack. `image` is pinned by digest."""

    id: str
    name: str
    image: str


class Packs(msgspec.Struct, frozen=True, kw_only=True):
    """What sessions run."""

    default_image: str = ""
    """The default pack's image, `name[:tag]@sha256:<digest>`; `ops/images pack` prints it."""
    additional: list[NamedPack] = []
    """Further packs that sessions can name."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, one field a section."""

    daemon: Daemon = Daemon()
    adapters: Adapters = Adapters()
    gpus: Gpus = Gpus()
    workspaces: Workspaces = Workspaces()
    network: Network = Network()
    containers: Containers = Containers()
    sessions: Sessions = Sessions()
    packs: Packs = Packs()
    metrics: Metrics = Metrics()


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings, checked as far as they can be without looking at the host. Raises ConfigurationError."""
    settings = configuration.load(path, Settings, environ, PREFIX, ALIASES)
    _check_network(settings.network)
    _check_metrics(settings)
    packs_of(settings)
    for key, value in (("pool", settings.workspaces.pool), ("root", settings.workspaces.root)):
        if not value or value.startswith(("/", "-")) or ".." in value.split("/") or any(c in value for c in "@# \n"):
            raise configuration.ConfigurationError(
                f"workspaces.{key}: {value!r} is not a dataset's name; write it without leading slash, spaces, @ and #"
            )
    return settings


def network_of(settings: Network) -> tuple[IPv4Network, IPv4Address]:
    """The parsed subnet and proxy address of checked settings."""
    return IPv4Network(settings.subnet), IPv4Address(settings.proxy_address)


def network_spec(settings: Network) -> NetworkSpec:
    """The sessions' network as checked settings want it."""
    subnet, _ = network_of(settings)
    # The lower half holds the fixed addresses: gateway, Caddy, the reserved one and those of the probes.
    return NetworkSpec(
        name=settings.name,
        subnet=subnet,
        gateway=IPv4Address(int(subnet.network_address) + 1),
        dynamic_range=list(subnet.subnets())[1],
        bridge=settings.bridge,
    )


def packs_of(settings: Settings) -> tuple[Pack, ...]:
    """The packs, the default one first. Raises ConfigurationError for one that is not pinned by digest."""
    packs = [Pack(DEFAULT_PACK_ID, "default", settings.packs.default_image)] if settings.packs.default_image else []
    for extra in settings.packs.additional:
        try:
            packs.append(Pack(msgspec.convert(extra.id, type=type(DEFAULT_PACK_ID)), extra.name, extra.image))
        except msgspec.ValidationError as error:
            raise configuration.ConfigurationError(
                f"packs.additional: the id {extra.id!r} of pack {extra.name!r} is not a UUID; `uuidgen` makes one"
            ) from error
    for pack in packs:
        name, at, digest = pack.image.partition("@sha256:")
        if not (name and at and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
            raise configuration.ConfigurationError(
                f"pack {pack.name!r}: the image {pack.image!r} is not pinned by digest; "
                "write name@sha256:<64 hex digits>"
            )
    if len({pack.id for pack in packs}) != len(packs):
        raise configuration.ConfigurationError("packs: two packs have the same id; give each its own")
    return tuple(packs)


def simulated(settings: Settings, directory: Path) -> Settings:
    """The `--simulate` profile: every adapter simulated, state and socket in one directory, no root needed."""
    return msgspec.structs.replace(
        settings,
        daemon=msgspec.structs.replace(
            settings.daemon, socket=str(directory / "medforged.sock"), state_directory=str(directory), socket_group=""
        ),
        adapters=Adapters(gpus="simulated", workspaces="simulated", containers="simulated", isolation="simulated"),
        packs=msgspec.structs.replace(
            settings.packs, default_image=settings.packs.default_image or f"simulated@sha256:{'0' * 64}"
        ),
        metrics=msgspec.structs.replace(settings.metrics, socket_group=""),
    )


def _check_metrics(settings: Settings) -> None:
    listen = settings.metrics.listen
    if listen and not listen.startswith("/"):
        raise configuration.ConfigurationError(
            f"metrics.listen: {listen!r} is not the path of a Unix socket, and medforged never listens on TCP; "
            "write an absolute path like /run/medforge/metrics.sock"
        )
    if listen == settings.daemon.socket:
        raise configuration.ConfigurationError(
            f"metrics.listen: {listen} is the daemon's own socket; write another path like /run/medforge/metrics.sock"
        )


def _check_network(network: Network) -> None:
    try:
        subnet, proxy = network_of(network)
    except ValueError as error:
        raise configuration.ConfigurationError(
            f"network: {error}; write network.subnet like 172.30.0.0/24 and network.proxy_address like 172.30.0.2"
        ) from error
    if subnet.prefixlen > 26 or subnet.prefixlen < 16:
        raise configuration.ConfigurationError(
            f"network.subnet: {subnet} must be between a /16 and a /26, so that fixed addresses and sessions both fit"
        )
    if int(proxy) - int(subnet.network_address) not in range(2, 16):
        raise configuration.ConfigurationError(
            f"network.proxy_address: {proxy} must be one of the addresses 2 to 15 of {subnet}; "
            "the rest belongs to sessions"
        )
