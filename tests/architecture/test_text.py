"""The tree speaks of the product alone: no paths of the machine it was written on, no hosts of package registries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, tracked

pytestmark = pytest.mark.unit

# Written by package managers, which note where each package came from.
LOCK_FILES = {"package-lock.json", "pnpm-lock.yaml", "yarn.lock", "uv.lock"}


COMMON_FOLDERS = ("/", "/tmp", "/var/tmp", "/home", "/opt", "/root", "/srv", "/mnt", "/usr/src")


def patterns(root: Path) -> dict[str, re.Pattern[str]]:
    """What does not belong into a tracked file, by what it is. Here it is written with a _, since this file is tracked."""
    names = "py_pi|npm_js|yarn_pkg|python_hosted|docker_hub".replace("_", "")
    # The folder of the checkout itself is a common word in containers (/app, /src), so a root's child is not looked for.
    # Nor is the folder above it, where that is one that every system has.
    here = [re.escape(str(path)) for path in (root, root.parent) if str(path) not in COMMON_FOLDERS]
    return {
        "a path of this checkout": re.compile(rf"(?<![\w./-])(?:{'|'.join(here)})/") if here else re.compile("(?!)"),
        "a home folder": re.compile(r"(?<![\w.})-])/(?:home/[a-z][\w-]*|root)/(?!\.)\w"),
        "the host of a package registry": re.compile(
            rf"\b(?:[\w-]+\.)*(?:{names})\.(?:org|com)\b|\bregistry\.[\w-]+\.\w+"
        ),
        "the address of a package index": re.compile(r"https?://\S+/(?:simple|pool)/"),
        "a key": re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    }


def complaints(name: str, text: str, root: Path) -> list[str]:
    return [
        f"{name}:{number}: {what}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in patterns(root).items()
        if pattern.search(line)
    ]


def test_tracked_files_speak_of_the_product_alone() -> None:
    found: list[str] = []
    for path in tracked():
        if path.name in LOCK_FILES:
            continue
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += complaints(str(path), text, ROOT)
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "cd /srv/checkouts/medforge/ops",
        "see /srv/checkouts/notes.md",
        "/ho_me/alice/medforge",
        "/ro_ot/medforge",
        "pip install --index-url https://py_pi.org/x",
        "https://files.python_hosted.org/packages",
        "npm config set registry https://regis_try.example.net",
        "deb https://mirror.example.net/debian/po_ol/main",
        "-----BEGIN RSA PRIV_ATE KEY-----",
    ],
)
def test_what_does_not_belong_is_seen(line: str) -> None:
    assert complaints("a.md", f"fine\n{line}\n".replace("_", ""), Path("/srv/checkouts/medforge"))


@pytest.mark.parametrize(
    "line",
    [
        "/etc/medforge/medforged.toml",
        "docs/srv/checkouts/x",
        "/root/.ssh",
        "/proc/{pid}/root/sys",
        "a registry of handlers",
    ],
)
def test_what_belongs_is_left_alone(line: str) -> None:
    assert not complaints("a.md", line, Path("/srv/checkouts/medforge"))
