"""Owns whether the daemon's settings can be used."""

from __future__ import annotations

import os

from medforged.config import DEFAULT_PATH, Settings, load_settings
from medforged.configuration import ConfigurationError
from medforged.contract.doctor import Examination, Kind, failed, fine, warning

__all__ = ["examine_settings"]


def examine_settings() -> tuple[Settings, list[Examination]]:
    """The settings, or the defaults where the file cannot be used, and what is to be said about it."""
    subject = "daemon's settings"
    path = DEFAULT_PATH if DEFAULT_PATH.exists() else None
    try:
        settings = load_settings(path, os.environ)
    except ConfigurationError as error:
        return Settings(), [
            failed(Kind.CONFIGURATION, subject, str(error), "correct it; `medforged --check` tells more")
        ]
    found = [fine(Kind.CONFIGURATION, subject, f"{path or 'defaults, since there is no ' + str(DEFAULT_PATH)}")]
    if not settings.packs.default_image:
        found.append(
            failed(
                Kind.CONFIGURATION,
                "default pack",
                "packs.default_image names no image, so no session can start",
                f"run `ops/images pack` and write the reference that it prints into {DEFAULT_PATH}",
            )
        )
    else:
        found.append(fine(Kind.CONFIGURATION, "default pack", settings.packs.default_image))
    simulated = [
        f"adapters.{name}"
        for name in ("gpus", "workspaces", "containers", "isolation")
        if getattr(settings.adapters, name) == "simulated"
    ]
    if simulated:
        found.append(
            warning(
                Kind.CONFIGURATION,
                "adapters",
                f'{" and ".join(simulated)} = "simulated": a part of this host is only simulated',
                f"remove it from {DEFAULT_PATH} on a host that people work on",
            )
        )
    return settings, found
