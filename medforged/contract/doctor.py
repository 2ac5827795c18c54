"""Owns what an examination of a host and a site tells: one line for each precondition, with its remedy."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["Diagnosis", "Examination", "Kind", "Verdict", "failed", "fine", "skipped", "warning"]


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Works, and is not as it should be."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Could not be looked at, because something else failed or is not wanted here."""


class Kind(StrEnum):
    """What a failure belongs to; each has an exit code of its own."""

    CONFIGURATION = "configuration"
    PERMISSIONS = "permissions"
    HOST = "host"
    """Docker, ZFS, kernel, GPUs, clock."""
    SERVICES = "services"
    """Daemon, facade and Caddy."""
    SITE = "site"
    """Names and certificates, seen as a browser sees them."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """One precondition. `message` says what was seen, `remedy` what to do; empty where nothing is to be done."""

    kind: Kind
    subject: str
    verdict: Verdict
    message: str
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was looked at, in the order of looking."""

    examinations: list[Examination]


def fine(kind: Kind, subject: str, message: str) -> Examination:
    """A precondition that holds."""
    return Examination(kind=kind, subject=subject, verdict=Verdict.OK, message=message)


def failed(kind: Kind, subject: str, message: str, remedy: str) -> Examination:
    """A precondition that does not hold."""
    return Examination(kind=kind, subject=subject, verdict=Verdict.FAILED, message=message, remedy=remedy)


def warning(kind: Kind, subject: str, message: str, remedy: str) -> Examination:
    """Something that works and should be otherwise."""
    return Examination(kind=kind, subject=subject, verdict=Verdict.WARNING, message=message, remedy=remedy)


def skipped(kind: Kind, subject: str, message: str) -> Examination:
    """Something that could not be looked at, or need not."""
    return Examination(kind=kind, subject=subject, verdict=Verdict.SKIPPED, message=message)
