"""Owns what an e-mail address is to us: the syntax that is accepted, and the one spelling under which it is kept."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["MAX_LENGTH", "InvalidEmail", "beginning", "normalize"]

# RFC 5321 section 4.5.3.1: 64 octets before the @, 254 in all so that the path with its brackets fits in 256.
MAX_LENGTH = 254
_LOCAL_MAX_LENGTH = 64
_LABEL_MAX_LENGTH = 63

# RFC 5322 dot-atom; letters and digits of every script as RFC 6532 allows.
_LOCAL = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*")
_LABEL = re.compile(r"[^\W_]([^\W_]|-)*[^\W_]|[^\W_]")


class InvalidEmail(ValueError):
    """The text is not an e-mail address; the message says why and is safe to show."""


def normalize(text: str) -> str:
    """The spelling under which an address is kept and compared: NFC, lower case, no space around it.

    Two accounts cannot differ in upper and lower case alone, although RFC 5321 would let a mail server tell
    such addresses apart. Raises InvalidEmail.
    """
    email = beginning(text.strip())
    local, at, domain = email.rpartition("@")
    if not at or not local or not domain:
        raise InvalidEmail("An e-mail address has the form name@example.org.")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in email):
        raise InvalidEmail("The e-mail address contains a character that cannot be seen.")
    if len(email.encode()) > MAX_LENGTH or len(local.encode()) > _LOCAL_MAX_LENGTH:
        raise InvalidEmail("The e-mail address is too long.")
    if not _LOCAL.fullmatch(local):
        raise InvalidEmail("The part before the @ contains a character that is not allowed there.")
    labels = domain.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) and len(label) <= _LABEL_MAX_LENGTH for label in labels):
        raise InvalidEmail("The part after the @ is not a domain name.")
    return email


def beginning(text: str) -> str:
    """How addresses that begin so are kept: NFC and lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
