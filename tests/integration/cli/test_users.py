"""`medforgectl users`, against a real facade: accounts, passwords that nobody else sees, and what is told when it fails."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from medforged.contract.users import SignedOut, User, UserPage, UserResult
from tests.integration.cli.operated import OperatedFacade
from tests.integration.cli.program import Medforgectl

pytestmark = pytest.mark.integration

SECRET = "nobody else has seen this"


def fed(medforgectl: Medforgectl, *arguments: str, stdin: str | bytes) -> subprocess.CompletedProcess[str]:
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*medforgectl.argv, *arguments],
        env=medforgectl.environment,
        input=raw,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def cells(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.splitlines()]


def listed(medforgectl: Medforgectl, *arguments: str) -> list[User]:
    done = medforgectl("users", "ls", "-o", "json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return msgspec.json.decode(done.stdout, type=UserPage).users


def may_enter(facade: OperatedFacade, password: str, email: str = "ada@example.org") -> bool:
    from facade.auth.accounts import WrongCredentials

    accounts = facade.facade.accounts
    try:
        facade.run(accounts.sign_in(facade.run(accounts.find(email)), password))
    except WrongCredentials:
        return False
    return True


def test_the_first_admin(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    done = medforgectl("users", "create", "Ada@Example.org", "--admin", "--generate")
    assert (done.returncode, done.stderr) == (0, "")
    sentence, password = done.stdout.splitlines()
    assert sentence == "Made ada@example.org: admin, enabled, 1 session at once."
    secret = password.removeprefix("Password: ")
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", secret)
    assert may_enter(facade, secret)
    (user,) = listed(medforgectl)
    assert (user.email, user.is_admin) == ("ada@example.org", True)


def test_the_list(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    facade.add("ada@example.org", is_admin=True)
    facade.add("bob@example.org")
    assert medforgectl("users", "set", "bob@example.org", "--disable", "--sessions", "3").returncode == 0
    done = medforgectl("users", "ls")
    assert (done.returncode, done.stderr) == (0, "")
    head, bob, ada = cells(done.stdout)
    assert head == ["EMAIL", "ROLE", "STATE", "SESSIONS", "CREATED", "ID"]
    assert bob[:4] == ["bob@example.org", "user", "disabled", "3"]
    assert ada[:4] == ["ada@example.org", "admin", "enabled", "1"]
    for option, expected in (
        (["--admin"], ["ada"]),
        (["--disabled"], ["bob"]),
        (["--enabled", "--no-admin"], []),
        (["--email", "BO"], ["bob"]),
    ):
        assert [user.email.partition("@")[0] for user in listed(medforgectl, *option)] == expected
    done = medforgectl("users", "ls", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "There are more than these 1: raise --limit to see them.\n"


def test_more_accounts_than_one_answer_has(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    from sqlalchemy import insert

    from facade.store.tables import users

    async def fill() -> None:
        clock = facade.facade.clock
        rows = [
            {
                "id": uuid4(),
                "email": f"person{number}@example.org",
                "password_hash": "-",
                "is_admin": False,
                "max_concurrent_sessions": 1,
                "created_at": clock.now(),
            }
            for number in range(501)
        ]
        async with facade.facade.store.writing() as connection:
            await connection.execute(insert(users), rows)

    facade.run(fill())
    found = listed(medforgectl, "--limit", "1000")
    assert len({user.id for user in found}) == 501


@pytest.mark.parametrize("ending", ["\n", "\r\n", "", "\nand a second line\n"])
def test_a_password_from_stdin(facade: OperatedFacade, medforgectl: Medforgectl, ending: str) -> None:
    done = fed(medforgectl, "users", "create", "ada@example.org", "--password-stdin", stdin=SECRET + ending)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Made ada@example.org: user, enabled, 1 session at once.\n"
    assert may_enter(facade, SECRET)


@pytest.mark.parametrize(
    ("stdin", "told"),
    [
        ("", "its first line is empty"),
        ("\nsecret", "its first line is empty"),
        (b"\xff\xfe\n", "it is not text in this locale"),
        ("short\n", "A password has 8 to 128 characters."),
        ("x" * 129, "A password has 8 to 128 characters."),
    ],
)
def test_what_is_no_password(facade: OperatedFacade, medforgectl: Medforgectl, stdin: str | bytes, told: str) -> None:
    done = fed(medforgectl, "users", "create", "ada@example.org", "--password-stdin", stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert listed(medforgectl) == []


def test_a_password_is_asked_for_twice_and_not_shown(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    told, code = at_terminal(medforgectl, ["users", "create", "ada@example.org"], [SECRET, SECRET])
    assert code == 0, told
    assert "Password:" in told
    assert SECRET not in told
    assert "Made ada@example.org" in told
    assert may_enter(facade, SECRET)
    told, code = at_terminal(
        medforgectl, ["users", "password", "ada@example.org"], [SECRET, "a slip", SECRET * 2, SECRET * 2]
    )
    assert code == 0, told
    assert may_enter(facade, SECRET * 2)


def test_without_a_terminal_nothing_is_asked(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    for command in (["create", "ada@example.org"], ["password", "ada@example.org"]):
        done = medforgectl("users", *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert "give --password-stdin or --generate" in done.stderr
    done = medforgectl("users", "create", "ada@example.org", "--generate", "--password-stdin")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)
    assert listed(medforgectl) == []


def test_there_is_no_way_to_give_a_password_as_an_argument(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    assert medforgectl("users", "create", "ada@example.org", SECRET).returncode == 2
    assert medforgectl("users", "password", "ada@example.org", f"--password={SECRET}").returncode == 2


def test_changes(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    facade.add("root@example.org", is_admin=True)
    token = facade.add("ada@example.org")
    done = medforgectl("users", "set", "ADA@example.org", "--admin", "--sessions", "0")
    assert (done.returncode, done.stdout) == (0, "ada@example.org is now: admin, enabled, 0 sessions at once.\n")
    assert facade.signed_in(token)
    done = medforgectl("users", "set", "ada@example.org", "--disable", "--no-admin", "-o", "json")
    changed = msgspec.json.decode(done.stdout, type=UserResult).user
    assert (done.returncode, changed.is_disabled, changed.is_admin) == (0, True, False)
    assert not facade.signed_in(token)
    assert medforgectl("users", "set", str(changed.id), "--enable").returncode == 0
    assert may_enter(facade, "correct horse")


def test_a_new_password_and_signing_out(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    token = facade.add("ada@example.org")
    done = medforgectl("users", "logout", "ada@example.org")
    assert (done.returncode, done.stdout) == (0, "ada@example.org is signed out: 1 login and 0 API tokens ended.\n")
    assert not facade.signed_in(token)
    done = medforgectl("users", "logout", "ada@example.org", "-o", "json")
    assert msgspec.json.decode(done.stdout, type=SignedOut).logins == 0
    done = fed(medforgectl, "users", "password", "ada@example.org", "--password-stdin", stdin=SECRET)
    assert (done.returncode, done.stdout) == (
        0,
        "ada@example.org has a new password; every login and API token of it has ended.\n",
    )
    assert may_enter(facade, SECRET)
    assert not may_enter(facade, "correct horse")


def test_json_has_a_password_only_where_it_was_made_up(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    done = medforgectl("users", "create", "ada@example.org", "--generate", "-o", "json")
    told = msgspec.json.decode(done.stdout)
    assert set(told) == {"user", "password"}
    assert may_enter(facade, told["password"])
    done = fed(medforgectl, "users", "password", "ada@example.org", "--password-stdin", "-o", "json", stdin=SECRET)
    assert set(msgspec.json.decode(done.stdout)) == {"user"}
    assert SECRET not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["set", "eve@example.org", "--admin"], 66, "cannot find eve@example.org"),
        (["logout", str(uuid4())], 66, "cannot find"),
        (["logout", "eve"], 2, "is neither an account's id nor its e-mail address"),
        (["logout", "eve\udcff@example.org"], 2, "it is not text in this locale"),
        (["password", "eve@example.org", "--generate"], 66, "cannot find eve@example.org"),
        (["create", "ada@example.org", "--generate"], 1, "there is one; medforgectl users set changes it"),
        (["create", "ada", "--generate"], 2, "for an e-mail address"),
        (["create", "ada\x1b[2J@example.org", "--generate"], 2, r"ada\x1b[2J@example.org"),
        (["set", "ada@example.org", "--no-admin"], 1, "nobody else is an admin; make another one first"),
        (["set", "ada@example.org", "--disable"], 1, "nobody else is an admin; make another one first"),
    ],
)
def test_failures(facade: OperatedFacade, medforgectl: Medforgectl, arguments: list[str], code: int, told: str) -> None:
    facade.add("ada@example.org", is_admin=True)
    done = medforgectl("users", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert done.stderr.splitlines()[-1].count("medforgectl: ") == 1 or "Error: " in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["set", "ada@example.org"], "say what to change"),
        (["set", "ada@example.org", "--sessions", "1001"], "1001 is not in the range"),
        (["ls", "--limit", "0"], "0 is not in the range"),
        (["create"], "Missing argument 'EMAIL'"),
        (["logout"], "Missing argument 'ID_OR_EMAIL'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_a_wrong_command_line(medforgectl: Medforgectl, arguments: list[str], complaint: str) -> None:
    done = medforgectl("users", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_no_facade(socket_path: Path, medforgectl: Medforgectl) -> None:
    done = medforgectl("users", "ls")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        f"medforgectl: cannot reach the facade at {socket_path.with_name('operators.sock')}: it is not running; "
        "start it with ./ops/up or systemctl start medforge-facade\n"
    )


def test_where_the_socket_is(facade: OperatedFacade, medforgectl: Medforgectl) -> None:
    medforgectl.argv = medforgectl.argv[:3]
    assert medforgectl("--operator-socket", str(facade.socket), "users", "ls").returncode == 0
    medforgectl.environment["MEDFORGE_OPERATOR_SOCKET"] = str(facade.socket)
    assert medforgectl("users", "ls").returncode == 0
    done = medforgectl("--operator-socket", "/nonexistent/operators.sock", "users", "ls")
    assert (done.returncode, "/nonexistent/operators.sock" in done.stderr) == (69, True)


def at_terminal(medforgectl: Medforgectl, arguments: list[str], answers: list[str]) -> tuple[str, int]:
    """Everything that a terminal shows while this is run, each prompt answered in turn, and the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(medforgectl.argv[0], [*medforgectl.argv, *arguments], medforgectl.environment)
    shown, waiting = "", list(answers)
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:  # EIO: the program has closed its terminal
                break
            if waiting and shown.endswith(": "):
                os.write(terminal, waiting.pop(0).encode() + b"\n")
                shown += "\n"
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return shown, os.waitstatus_to_exitcode(status)
