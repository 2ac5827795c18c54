"""Owns where an installation keeps what on a host that systemd runs."""

from __future__ import annotations

from pathlib import Path

LIBRARY = Path("/usr/lib/medforge")
RELEASES = LIBRARY / "releases"
# What the units name; the release that serves.
CURRENT = LIBRARY / "current"
SETTINGS = Path("/etc/medforge")
DAEMON_STATE = Path("/var/lib/medforge")
FACADE_STATE = Path("/var/lib/medforge-facade")
CADDY_STATE = Path("/var/lib/medforge-caddy")
COMMANDS = Path("/usr/bin")
COMMAND_NAMES = ("medforgectl", "medforge-facade", "medforged")

FACADE_USER = "medforge-facade"

DAEMON = "medforged.service"
FACADE = "medforge-facade.service"
CADDY = "medforge-caddy.service"
SOCKETS = ("medforged.socket", "medforge-facade.socket", "medforge-facade-operator.socket")
TARGET = "medforge.target"
ENABLED = (TARGET, *SOCKETS, DAEMON, FACADE, CADDY)
