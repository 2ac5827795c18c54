"""Owns `medforgectl users`: the facade's accounts, from the first admin on, without the public API."""

from __future__ import annotations

import click
import msgspec

from cli.connection import Facade, pass_facade
from cli.output import count, moment, output_option, print_json, print_table, print_text
from cli.passwords import password_options, read_password
from cli.text import one_line
from cli.users import complete, described, page, reference, role, state
from medforged.contract import operators
from medforged.contract.users import (
    ChangeUser,
    CreateUser,
    ListUsers,
    SetPassword,
    SignedOut,
    User,
    UserRef,
    UserResult,
)

__all__ = ["change", "create", "list_users", "logout", "password", "users"]


class _WithPassword(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON where a password was made up: it is told this once."""

    user: User
    password: str


_user = click.argument("user", metavar="ID_OR_EMAIL", type=reference, shell_complete=complete)
_sessions = click.option(
    "--sessions",
    type=click.IntRange(min=0, max=1000),
    metavar="NUMBER",
    help="How many sessions the account may have at once.",
)


@click.group()
@click.pass_context
def users(context: click.Context) -> None:
    """List accounts, make and change them, set passwords and sign people out.

    The first admin of a site is made here. An account is named by its id or its e-mail address.

    \b
    Examples:
      medforgectl users ls
      medforgectl users create ada@example.org --admin --generate
    """
    context.obj = Facade.of(context)


@users.command("ls")
@click.option("--email", metavar="TEXT", type=reference, help="Only accounts whose address begins so.")
@click.option("--admin/--no-admin", "is_admin", default=None, help="Only admins, or only others.")
@click.option("--disabled/--enabled", "is_disabled", default=None, help="Only disabled accounts, or only others.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="NUMBER",
    help="At most so many, the newest first.",
)
@output_option
@pass_facade
def list_users(
    facade: Facade, email: str | None, is_admin: bool | None, is_disabled: bool | None, limit: int, output: str
) -> None:
    """List accounts, newest first.

    \b
    Examples:
      medforgectl users ls
      medforgectl users ls --admin
      medforgectl users ls --email ada@ -o json | jq -r '.users[].id'
    """
    wanted = ListUsers(email=email, is_admin=is_admin, is_disabled=is_disabled)
    found = facade.run(lambda client: page(client, wanted, limit))
    if output == "json":
        print_json(found)
        return
    print_table(
        ["email", "role", "state", "sessions", "created", "id"],
        [
            (
                user.email,
                role(user),
                state(user),
                str(user.max_concurrent_sessions),
                moment(user.created_at),
                str(user.id),
            )
            for user in found.users
        ],
    )
    if found.has_more:
        click.echo(f"There are more than these {len(found.users)}: raise --limit to see them.", err=True)


@users.command()
@click.argument("email", metavar="EMAIL", type=reference)
@click.option("--admin", "is_admin", is_flag=True, help="Make it an admin's.")
@_sessions
@password_options
@output_option
@pass_facade
def create(
    facade: Facade, email: str, *, is_admin: bool, sessions: int | None, from_stdin: bool, generate: bool, output: str
) -> None:
    """Make an account.

    The password is asked for, read from stdin or made up; it is never an argument, which others could see.

    \b
    Examples:
      medforgectl users create ada@example.org --admin --generate
      medforgectl users create bob@example.org --sessions 2 --generate -o json | jq -r .password
    """
    secret = read_password(from_stdin=from_stdin, generate=generate)
    wanted = CreateUser(email=email, password=secret, is_admin=is_admin, max_concurrent_sessions=sessions)
    made = facade.run(lambda client: client.call(operators.users_create, wanted))
    _tell(made, output, f"Made {made.user.email}: {described(made.user)}.", secret if generate else None)


@users.command("set")
@_user
@click.option("--admin/--no-admin", "is_admin", default=None, help="Make it an admin's, or an ordinary one.")
@click.option(
    "--disable/--enable",
    "is_disabled",
    default=None,
    help="Let nobody sign in to it, ending its logins and API tokens; or let them again.",
)
@_sessions
@output_option
@pass_facade
def change(
    facade: Facade, user: str, *, is_admin: bool | None, is_disabled: bool | None, sessions: int | None, output: str
) -> None:
    """Change what an account may do.

    The last admin can be neither demoted nor disabled. Sessions of a disabled account go on until they are stopped
    (medforgectl sessions ls --user).

    \b
    Examples:
      medforgectl users set ada@example.org --admin
      medforgectl users set bob@example.org --disable
      medforgectl users set bob@example.org --enable --sessions 2
    """
    if is_admin is None and is_disabled is None and sessions is None:
        raise click.UsageError("say what to change: --admin, --no-admin, --disable, --enable or --sessions")
    wanted = ChangeUser(user=user, is_admin=is_admin, is_disabled=is_disabled, max_concurrent_sessions=sessions)
    changed = facade.run(lambda client: client.call(operators.users_change, wanted))
    _tell(changed, output, f"{changed.user.email} is now: {described(changed.user)}.")


@users.command()
@_user
@password_options
@output_option
@pass_facade
def password(facade: Facade, user: str, *, from_stdin: bool, generate: bool, output: str) -> None:
    """Give an account a new password. Its logins and API tokens end.

    \b
    Examples:
      medforgectl users password ada@example.org --generate
    """
    secret = read_password(from_stdin=from_stdin, generate=generate)
    wanted = SetPassword(user=user, password=secret)
    done = facade.run(lambda client: client.call(operators.users_set_password, wanted))
    sentence = f"{done.user.email} has a new password; every login and API token of it has ended."
    _tell(done, output, sentence, secret if generate else None)


@users.command()
@_user
@output_option
@pass_facade
def logout(facade: Facade, user: str, output: str) -> None:
    """End every login and API token of an account. Its password stays.

    \b
    Examples:
      medforgectl users logout ada@example.org
    """
    done = facade.run(lambda client: client.call(operators.users_sign_out, UserRef(user=user)))
    ended = f"{count(done.logins, 'login')} and {count(done.api_tokens, 'API token')}"
    _tell(done, output, f"{done.user.email} is signed out: {ended} ended.")


def _tell(result: UserResult | SignedOut, output: str, sentence: str, secret: str | None = None) -> None:
    """What is now true, and the password where one was made up."""
    if output == "json":
        print_json(result if secret is None else _WithPassword(user=result.user, password=secret))
        return
    print_text(one_line(sentence))
    if secret is not None:
        print_text(f"Password: {secret}")
