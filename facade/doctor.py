"""Owns the facade's half of `medforgectl doctor`: its settings, and the site as a browser sees it: names, certificates,
answers."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

from facade.config import DEFAULT_PATH, Settings, load_settings
from facade.hosts import Hosts
from medforged.configuration import ConfigurationError
from medforged.contract.doctor import Examination, Kind, Verdict, failed, fine, skipped, warning

__all__ = ["examine"]

_CADDY_SETTINGS = Path("/etc/medforge/caddy.env")
_SECONDS = 10.0
# Names that need no record: they are this host's own (RFC 6761).
_LOOPBACK = ".localhost"
# A slug that chance gives to nobody: the wildcard's name and certificate are looked at, nobody's session.
_NOBODY = "aaaaaaaa"
_START = "`systemctl start medforge-facade`; see `journalctl -u medforge-facade`"
_CADDY = "`systemctl start medforge-caddy`; see `journalctl -u medforge-caddy` and `docker logs medforge-caddy`"


async def examine() -> list[Examination]:
    """Every precondition of the site. Changes nothing."""
    settings, found = _settings()
    found += [await _facade(settings)]
    hosts = Hosts(settings.site.domain, settings.site.https_port)
    names = (hosts.site, hosts.api, f"s-{_NOBODY}.{hosts.site}")
    resolved = [await _name(name) for name in names]
    found += resolved
    if any(examination.verdict is Verdict.FAILED for examination in resolved):
        return [*found, skipped(Kind.SITE, "certificates", "names have to resolve first")]
    for name, path, wanted in (
        (names[0], "/", {200}),
        (names[1], "/api/v1/me", {401}),
        # Without a login: whoever is not signed in is sent to the login page or refused.
        (names[2], "/", {302, 303, 307, 401, 404}),
    ):
        found += await _answer(name, settings.site.https_port, path, wanted, trial=settings.site.domain == "localhost")
    return found


def _settings() -> tuple[Settings, list[Examination]]:
    subject = "facade's settings"
    path = DEFAULT_PATH if DEFAULT_PATH.exists() else None
    try:
        settings = load_settings(path, os.environ)
    except ConfigurationError as error:
        remedy = "correct it; `medforge-facade --check` tells more"
        return Settings(), [failed(Kind.CONFIGURATION, subject, str(error), remedy)]
    found = [fine(Kind.CONFIGURATION, subject, f"{path or 'defaults, since there is no ' + str(DEFAULT_PATH)}")]
    if not settings.auth.cookie_secure:
        told = "auth.cookie_secure is false: cookies travel without TLS too"
        found.append(
            warning(Kind.CONFIGURATION, "cookies", told, f"remove it from {DEFAULT_PATH} where Caddy serves TLS")
        )
    root = Path(settings.site.web_root)
    if settings.site.web_root and not (root / "index.html").is_file():
        told = f"site.web_root: {root} has no index.html, so the site has no pages"
        found.append(failed(Kind.CONFIGURATION, "pages", told, "name the folder of the web UI's files"))
    return settings, [*found, _coherent(settings)]


def _coherent(settings: Settings) -> Examination:
    """Whether Caddy serves the names that the facade goes by: cookies and origins depend on it."""
    subject = "Caddy's settings"
    try:
        lines = _CADDY_SETTINGS.read_text().splitlines()
    except OSError as error:
        return skipped(Kind.CONFIGURATION, subject, f"{_CADDY_SETTINGS}: {error.strerror}")
    told = dict(line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    wrong = [
        f"{name} is {told.get(name, default)}, and the facade's {setting} is {value}"
        for name, default, setting, value in (
            ("MEDFORGE_DOMAIN", "localhost", "site.domain", settings.site.domain),
            ("MEDFORGE_HTTPS_PORT", "8443", "site.https_port", str(settings.site.https_port)),
        )
        if told.get(name, default).strip().strip("\"'") != value
    ]
    if wrong:
        remedy = f"make {_CADDY_SETTINGS} and {DEFAULT_PATH} say the same; signing in fails otherwise"
        return failed(Kind.CONFIGURATION, subject, "; ".join(wrong), remedy)
    return fine(Kind.CONFIGURATION, subject, f"{_CADDY_SETTINGS} agrees with the facade's")


async def _facade(settings: Settings) -> Examination:
    """What the facade's own health page says at its socket, whatever stands before it."""
    subject = "medforge-facade"
    if settings.listen.tcp:
        return skipped(Kind.SERVICES, subject, f"listens at {settings.listen.tcp}, as a trial does")
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(settings.listen.socket)
            status, body = await _exchange(reader, writer, "localhost", "/healthz")
    except (OSError, TimeoutError, ValueError) as error:
        return failed(Kind.SERVICES, subject, f"does not answer at {settings.listen.socket}: {_told(error)}", _START)
    if status != 200:
        return failed(Kind.SERVICES, subject, f"says that it is not well: {body[:500]}", _START)
    return fine(Kind.SERVICES, subject, "is well")


async def _name(name: str) -> Examination:
    subject = f"name {name}"
    try:
        async with asyncio.timeout(_SECONDS):
            answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        if name.endswith(_LOOPBACK):
            told = f"does not resolve: {_told(error)}; browsers take it for this host all the same"
            return warning(Kind.SITE, subject, told, "install libnss-myhostname, so that other programs do so too")
        if name.startswith("s-"):
            remedy = f"make a DNS record for *.{name.partition('.')[2]} that leads to this host"
        else:
            remedy = "make a DNS record that leads to this host; browsers say ERR_NAME_NOT_RESOLVED without it"
        return failed(Kind.SITE, subject, f"does not resolve: {_told(error)}", remedy)
    addresses = dict.fromkeys(str(answer[4][0]) for answer in answers)
    return fine(Kind.SITE, subject, f"is {', '.join(addresses)}")


async def _answer(name: str, port: int, path: str, wanted: set[int], *, trial: bool) -> list[Examination]:
    """The certificate, then what is answered: one that browsers refuse does not keep us from looking further."""
    try:
        certificate = await _certificate(name, port, trial=trial)
    except (OSError, TimeoutError) as error:
        told = f"nobody serves it at port {port}: {_told(error)}"
        return [failed(Kind.SITE, f"certificate of {name}", told, _CADDY)]
    subject = f"answer of {name}"
    # Whether it can be trusted has been told already.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(_place(name), port, ssl=context, server_hostname=name)
            status, _ = await _exchange(reader, writer, name if port == 443 else f"{name}:{port}", path)
    except (OSError, TimeoutError, ValueError) as error:
        return [certificate, failed(Kind.SITE, subject, f"there is none: {_told(error)}", _CADDY)]
    if status not in wanted:
        remedy = "see that Caddy is MedForge's and its settings name this domain; a 404 of the API means another host"
        return [certificate, failed(Kind.SITE, subject, f"{path} answers {status}", remedy)]
    return [certificate, fine(Kind.SITE, subject, f"{path} answers {status}")]


async def _certificate(name: str, port: int, *, trial: bool) -> Examination:
    """Chain, time and host name. Raises OSError, TimeoutError where nobody speaks TLS."""
    subject = f"certificate of {name}"
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                _place(name), port, ssl=ssl.create_default_context(), server_hostname=name
            )
    except ssl.SSLCertVerificationError as error:
        told = f"is not trusted: {error.verify_message}"
        if trial:
            remedy = "a trial's certificate is of Caddy's own authority; import that where you try it"
            return warning(Kind.SITE, subject, told, remedy)
        remedy = f"name a folder with cert.pem and key.pem in MEDFORGE_TLS of {_CADDY_SETTINGS}, then reload Caddy"
        return failed(Kind.SITE, subject, told, remedy)
    writer.transport.abort()
    return fine(Kind.SITE, subject, "is trusted and names the host")


def _place(name: str) -> str:
    """Where browsers look for it."""
    return "127.0.0.1" if name.endswith(_LOOPBACK) else name


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str
) -> tuple[int, str]:
    """Status and beginning of the body. Raises OSError, ValueError."""
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(65536)).partition(b"\r\n\r\n")
        status = head.split()
        if len(status) < 2 or not status[0].startswith(b"HTTP/"):
            raise ValueError("what answers does not speak HTTP")
        return int(status[1]), body.decode(errors="replace").strip()
    finally:
        writer.transport.abort()


def _told(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came within {_SECONDS:g} s"
    if (
        isinstance(error, OSError)
        and error.errno is not None
        and error.errno > 0
        and not isinstance(error, ssl.SSLError)
    ):
        # asyncio says in its own words, with the address, what the system has a name for.
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
