"""Owns where a trial installation keeps what, and the few variables that change it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from common import Failure

FACADE_USER = "medforge-facade"
CADDY_USER = "medforge-caddy"
OPERATOR_GROUP = "medforge"


@dataclass(frozen=True)
class Layout:
    """One installation on this host. Several can live side by side under different instance names and subnets."""

    instance: str
    domain: str
    https_port: int
    subnet: str
    pool: str
    quota_bytes: int

    @property
    def run(self) -> Path:
        return Path("/run") / self.instance

    @property
    def state(self) -> Path:
        """The daemon's, for root alone; also what this script makes."""
        return Path("/var/lib") / self.instance

    @property
    def facade_run(self) -> Path:
        """The facade's socket, which Caddy's container mounts."""
        return Path("/run") / f"{self.instance}-facade"

    @property
    def facade_state(self) -> Path:
        return Path("/var/lib") / f"{self.instance}-facade"

    @property
    def caddy_state(self) -> Path:
        return Path("/var/lib") / f"{self.instance}-caddy"

    @property
    def logs(self) -> Path:
        return Path("/var/log") / self.instance

    @property
    def daemon_socket(self) -> Path:
        return self.run / "medforged.sock"

    @property
    def operator_socket(self) -> Path:
        """The facade's, for operators: beside the daemon's, where neither the facade nor Caddy can put anything."""
        return self.run / "operators.sock"

    @property
    def daemon_pid_file(self) -> Path:
        """Of the program; the ledger has its keeper."""
        return self.run / "daemon.pid"

    @property
    def facade_socket(self) -> Path:
        return self.facade_run / "facade.sock"

    @property
    def facade_pid_file(self) -> Path:
        """In the facade's own directory, since its keeper runs as its user too."""
        return self.facade_run / "facade.pid"

    @property
    def network(self) -> str:
        return f"{self.instance}-public-sessions"

    @property
    def bridge(self) -> str:
        """At most 15 characters, the kernel's limit."""
        return "mf-public" if self.instance == "medforge" else f"mf-{self.instance}"[:15]

    @property
    def proxy_address(self) -> str:
        return self.subnet.rsplit(".", 1)[0] + ".2"

    @property
    def caddy_name(self) -> str:
        return f"{self.instance}-caddy"

    def url(self, host: str) -> str:
        port = "" if self.https_port == 443 else f":{self.https_port}"
        return f"https://{host}.{self.domain}{port}"


def layout_from_environment() -> Layout:
    """The installation that the variables describe. Raises Failure for values that cannot be."""
    instance = os.environ.get("MEDFORGE_INSTANCE", "medforge")
    if not (instance.isalnum() and instance.islower() and len(instance) <= 12):
        raise Failure(f"MEDFORGE_INSTANCE={instance!r}: use up to 12 lower-case letters and digits", 78)
    port = os.environ.get("MEDFORGE_HTTPS_PORT", "8443")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Failure(f"MEDFORGE_HTTPS_PORT={port!r}: use a port from 1 to 65535", 78)
    quota = os.environ.get("MEDFORGE_QUOTA_BYTES", str(2 * 1024**3))
    if not quota.isdigit():
        raise Failure(f"MEDFORGE_QUOTA_BYTES={quota!r}: use a number of bytes, 0 for none", 78)
    domain = os.environ.get("MEDFORGE_DOMAIN", "localhost")
    if not all(part and part.replace("-", "").isalnum() and part == part.lower() for part in domain.split(".")):
        raise Failure(f"MEDFORGE_DOMAIN={domain!r}: use a domain like example.org, in lower case", 78)
    return Layout(
        instance=instance,
        domain=domain,
        https_port=int(port),
        subnet=os.environ.get("MEDFORGE_SUBNET", "172.30.0.0/24"),
        pool=os.environ.get("MEDFORGE_POOL", "tank" if instance == "medforge" else f"{instance}pool"),
        quota_bytes=int(quota),
    )
