"""Owns the first settings of an installation; what an operator has written is never touched."""

from __future__ import annotations

import re
import string
import tomllib
from pathlib import Path
from typing import Any

import places
from common import Failure, run, say
from releases import Release

FILES = ("medforged.toml", "facade.toml", "caddy.env")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_POOL = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")


def ensure(release: Release, *, domain: str | None, pool: str | None, https_port: int | None) -> list[Path]:
    """Write the files that are missing and return them. Raises Failure for values that cannot be, and for new values
    of files that are there."""
    given = {"--domain": domain, "--pool": pool, "--https-port": https_port}
    if domain is not None and not _DOMAIN.fullmatch(domain):
        raise Failure(f"--domain {domain!r}: use a domain like example.org, in lower case", 78)
    if pool is not None and not _POOL.fullmatch(pool):
        raise Failure(f"--pool {pool!r}: use the name of a ZFS pool, as `zpool list` shows it", 78)
    if https_port is not None and not 0 < https_port < 65536:
        raise Failure(f"--https-port {https_port}: use a port from 1 to 65535", 78)
    missing = [name for name in FILES if not (places.SETTINGS / name).exists()]
    if not missing and (named := [name for name, value in given.items() if value is not None]):
        raise Failure(f"{' and '.join(named)}: {places.SETTINGS} has settings already; change them there", 78)
    values = {
        "domain": domain or "localhost",
        "pool": pool or "tank",
        "https_port": str(https_port or (443 if domain not in (None, "localhost") else 8443)),
    }
    places.SETTINGS.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in missing:
        template = string.Template((release.home / "deploy" / "settings" / name).read_text())
        path = places.SETTINGS / name
        part = path.with_name(f".{name}.part")
        part.write_text(template.substitute(values))
        part.chmod(0o644)
        part.replace(path)
        say(f"wrote {path}")
    return [places.SETTINGS / name for name in missing]


def check(release: Release) -> None:
    """Raises Failure where the release cannot use the settings: before anything has been changed."""
    for program, file in (("medforged", "medforged.toml"), ("medforge-facade", "facade.toml")):
        try:
            run([release.program(program), "--config", places.SETTINGS / file, "--check"])
        except Failure as error:
            raise Failure(f"release {release.name} cannot use {places.SETTINGS / file}: {error}", 78) from error


def read(name: str) -> dict[str, Any]:
    """One of the TOML files; empty where there is none."""
    try:
        return tomllib.loads((places.SETTINGS / name).read_text())
    except FileNotFoundError:
        return {}


def pin_default_pack(reference: str) -> None:
    """Name the default pack's image where the settings name none."""
    path = places.SETTINGS / "medforged.toml"
    if read("medforged.toml").get("packs", {}).get("default_image"):
        return
    text = path.read_text()
    line = f'default_image = "{reference}"'
    changed, times = re.subn(r'^#?\s*default_image\s*=\s*"".*$', line, text, flags=re.MULTILINE)
    if times != 1:
        raise Failure(f"{path} has no empty packs.default_image; write `{line}` there yourself", 78)
    part = path.with_name(".medforged.toml.part")
    part.write_text(changed)
    part.chmod(path.stat().st_mode & 0o777)
    part.replace(path)
