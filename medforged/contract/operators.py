"""Owns THE method table of the facade's operator socket: called like the daemon's, by operators alone.

See docs/reference/operator-rpc.md.
"""

from __future__ import annotations

from typing import Any

from medforged.contract import users
from medforged.contract.methods import Access, Method

__all__ = [
    "OPERATOR_METHODS",
    "users_change",
    "users_create",
    "users_list",
    "users_set_password",
    "users_sign_out",
]

# fmt: off
users_list         = Method("users.list",         users.ListUsers,   users.UserPage,   Access.OPERATOR, False, "A page of accounts, newest first.")
users_create       = Method("users.create",       users.CreateUser,  users.UserResult, Access.OPERATOR, True,  "Make an account.")
users_change       = Method("users.change",       users.ChangeUser,  users.UserResult, Access.OPERATOR, True,  "Change what an account may do; one that is disabled is signed out.")
users_set_password = Method("users.set_password", users.SetPassword, users.UserResult, Access.OPERATOR, True,  "Give an account a new password; its logins and API tokens end.")
users_sign_out     = Method("users.sign_out",     users.UserRef,     users.SignedOut,  Access.OPERATOR, True,  "End every login and API token of an account.")
# fmt: on

OPERATOR_METHODS: tuple[Method[Any, Any], ...] = (
    users_list,
    users_create,
    users_change,
    users_set_password,
    users_sign_out,
)
