"""Owns the first settings of an installation; what an operator has written is never touched."""

from __future__ import annotations

import re
import string
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import places
from common import Failure, run, say
from releases import Release

FILES = ("medforged.toml", "facade.toml", "caddy.env")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_POOL = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")


@dataclass(frozen=True)
class Wishes:
    """What a first installation is told; None stands for the default."""

    domain: str | None = None
    pool: str | None = None
    https_port: int | None = None


def validate(wishes: Wishes) -> None:
    """Raises Failure for values that cannot be, and for others than those of the settings that are there."""
    if wishes.domain is not None and not _DOMAIN.fullmatch(wishes.domain):
        raise Failure(f"--domain {wishes.domain!r}: use a domain like example.org, in lower case", 78)
    if wishes.pool is not None and not _POOL.fullmatch(wishes.pool):
        raise Failure(f"--pool {wishes.pool!r}: use the name of a ZFS pool, as `zpool list` shows it", 78)
    if wishes.https_port is not None and not 0 < wishes.https_port < 65536:
        raise Failure(f"--https-port {wishes.https_port}: use a port from 1 to 65535", 78)
    for option, wanted, name, section, key, default in (
        ("--domain", wishes.domain, "facade.toml", "site", "domain", "localhost"),
        ("--pool", wishes.pool, "medforged.toml", "workspaces", "pool", "tank"),
        ("--https-port", wishes.https_port, "facade.toml", "site", "https_port", 443),
    ):
        if wanted is None or not (places.SETTINGS / name).exists():
            continue
        present = read(name).get(section, {}).get(key, default)
        if present != wanted:
            raise Failure(f"{option} {wanted}: {places.SETTINGS / name} says {present}; change it there", 78)


def ensure(source: Path, wishes: Wishes) -> list[Path]:
    """Write the files that are missing, by the templates of a source tree, and return them."""
    domain = wishes.domain or "localhost"
    values = {
        "domain": domain,
        "pool": wishes.pool or "tank",
        "https_port": str(wishes.https_port or (8443 if domain == "localhost" else 443)),
    }
    places.SETTINGS.mkdir(mode=0o755, parents=True, exist_ok=True)
    missing = [name for name in FILES if not (places.SETTINGS / name).exists()]
    for name in missing:
        template = string.Template((source / "deploy" / "settings" / name).read_text())
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
    """One of the TOML files; empty where there is none. Raises Failure for one that cannot be read."""
    try:
        return tomllib.loads((places.SETTINGS / name).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {places.SETTINGS / name}: {error}; correct it first", 78) from error


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
