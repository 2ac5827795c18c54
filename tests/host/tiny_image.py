"""Owns a container image that holds one static busybox, made without any registry.

For host tests that need real containers and not the IDE. Its program is what the environment variable TINY says, a shell
script; without one it serves HTTP on port 8080 (`/healthz` answers 200). The image is tagged by its content, so it is made
once per engine. Needs the package busybox-static and the `docker` command.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "medforge-test-tiny"
BUSYBOX = Path("/bin/busybox")
DEFAULT_PROGRAM = "exec httpd -f -p 8080 -h /www"
# Not wget: that of a static busybox crashes when it looks up a name.
APPLETS = "cat chmod cp dd df echo env false grep hostname httpd id ip kill ln ls mkdir mount nc nslookup ping printf ps rm sed seq sh sleep stat sync tail test top touch tr true tty umount uname vi wc yes"
_CHANGES = (
    "ENV PATH=/bin",
    f'ENTRYPOINT ["/bin/sh", "-c", "eval \\"${{TINY:-{DEFAULT_PROGRAM}}}\\""]',
)


@dataclass(frozen=True, slots=True)
class TinyImage:
    """An image of this host: `id` is what the engine calls it, `reference` pins it by digest."""

    tag: str
    id: str

    @property
    def reference(self) -> str:
        return f"{self.tag}@{self.id}"


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """Run the docker command against the engine under test and return its output."""
    socket = engine_socket()
    completed = subprocess.run(
        ["docker", "--host", f"unix://{socket}", *arguments],
        input=stdin,
        capture_output=True,
        timeout=110,
        check=False,
        env=os.environ | {"DOCKER_BUILDKIT": "0"},  # BuildKit is a program of its own, and may not be there
    )
    if completed.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {completed.stderr.decode(errors='replace')}")
    return completed.stdout.decode().strip()


def engine_socket() -> Path:
    """MEDFORGE_TEST_DOCKER names the socket of another engine than the host's, to run the tests against."""
    return Path(os.environ.get("MEDFORGE_TEST_DOCKER", "/var/run/docker.sock"))


def ensure(*changes: str) -> TinyImage:
    """The image, or one with further Dockerfile instructions (`VOLUME /data`, `USER root`, `LABEL a=b`, …)."""
    content = _root_file_system()
    base = f"{REPOSITORY}:{_digest(content, *_CHANGES)}"
    if not _id_of(base):
        docker("import", *(word for change in _CHANGES for word in ("--change", change)), "-", base, stdin=content)
    if not changes:
        return TinyImage(base, _id_of(base))
    variant = f"{REPOSITORY}:{_digest(content, *_CHANGES, *changes)}"
    if not _id_of(variant):
        docker("build", "--quiet", "--tag", variant, "-", stdin="\n".join((f"FROM {base}", *changes)).encode())
    return TinyImage(variant, _id_of(variant))


def _digest(content: bytes, *changes: str) -> str:
    return hashlib.sha256(content + "\n".join(changes).encode()).hexdigest()[:16]


def _id_of(tag: str) -> str:
    return docker("image", "ls", "--quiet", "--no-trunc", tag)


def _root_file_system() -> bytes:
    """The same bytes every time: nothing in them says when or where they were made."""
    if not BUSYBOX.exists():
        raise RuntimeError(f"{BUSYBOX} is missing; install the package busybox-static")
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("www", 0o755), ("tmp", 0o1777), ("workspace", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, mode, content in (
            ("bin/busybox", 0o755, BUSYBOX.read_bytes()),
            ("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\ntiny:x:1000:1000::/workspace:/bin/sh\n"),
            ("etc/group", 0o644, b"root:x:0:tiny\ntiny:x:1000:\nextra:x:2000:tiny\n"),
            ("www/healthz", 0o644, b"ok\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))
        for applet in APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return written.getvalue()
