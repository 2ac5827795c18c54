"""Owns THE table of limits: what is counted, by which key, and the settings that say how often."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from facade.config import Limits as Settings
from facade.limits.windows import Window

__all__ = ["Rule", "windows"]


class Rule(IntEnum):
    """What is limited. The number is the rule's region in the shared table."""

    NETWORK_ATTEMPTS = 0
    """Attempts to sign up or in from an IPv4 address, or from a /48 of IPv6."""
    ADDRESS_ATTEMPTS = 1
    """The same from an IPv4 address, or from a /64 of IPv6."""
    DEVICE_ATTEMPTS = 2
    """Attempts to sign in with a device cookie, which are not counted by address."""
    VISITOR_FAILURES = 3
    """Wrong passwords for an account from one network, without a device cookie."""
    ACCOUNT_FAILURES = 4
    """Wrong passwords for an account from everywhere, without a device cookie."""
    DEVICE_FAILURES = 5
    """Wrong passwords with a device cookie."""
    USER_FAILURES = 6
    """Wrong current passwords of somebody who is signed in."""
    USER_ATTEMPTS = 7
    """Attempts of somebody who is signed in at the current password."""
    NETWORK_SIGNUPS = 8
    """New accounts, and new e-mail addresses of accounts, from one network."""
    KNOWN_ATTEMPTS = 9
    """Attempts of devices and of signed-in users from one network, so that no crowd of accounts keeps hashing."""
    USER_TOKENS = 10
    """API tokens that a user makes."""


def windows(settings: Settings) -> Mapping[Rule, Window]:
    """How often each may happen."""
    # fmt: off
    return {
        Rule.NETWORK_ATTEMPTS: Window(settings.attempts_per_network, settings.attempts_window_seconds),
        Rule.ADDRESS_ATTEMPTS: Window(settings.attempts_per_address, settings.attempts_window_seconds),
        Rule.DEVICE_ATTEMPTS:  Window(settings.attempts_per_device,  settings.attempts_window_seconds),
        Rule.VISITOR_FAILURES: Window(settings.failures_per_visitor, settings.failures_window_seconds),
        Rule.ACCOUNT_FAILURES: Window(settings.failures_per_account, settings.failures_window_seconds),
        Rule.DEVICE_FAILURES:  Window(settings.failures_per_device,  settings.failures_window_seconds),
        Rule.USER_FAILURES:    Window(settings.failures_per_device,  settings.failures_window_seconds),
        Rule.USER_ATTEMPTS:    Window(settings.attempts_per_device,  settings.attempts_window_seconds),
        Rule.KNOWN_ATTEMPTS:   Window(settings.attempts_per_network, settings.attempts_window_seconds),
        Rule.NETWORK_SIGNUPS:  Window(settings.signups_per_network,  settings.signups_window_seconds),
        Rule.USER_TOKENS:      Window(settings.tokens_per_user,      settings.tokens_window_seconds),
    }
    # fmt: on
