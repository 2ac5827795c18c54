"""Help, its examples, the version, shell completion, and how little is loaded for them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator

import click
import pytest

from cli.connection import DEFAULT_OPERATOR_SOCKET
from cli.main import medforgectl as program
from medforged import __version__
from medforged.client import DEFAULT_SOCKET
from medforged.contract.gpus import GpuList
from medforged.contract.orphans import Orphan, OrphanKind
from medforged.contract.sessions import SessionStatus
from tests.fakes.daemon import make_gpu
from tests.integration.cli.operated import OperatedFacade
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


EVERY = list(commands(program))
# These look at the host itself, which is not the test's own; tests/hostlab runs them on one that is.
OF_THE_HOST = ("medforgectl doctor", "medforgectl logs")
EXAMPLES = sorted(
    {
        line.strip()
        for _, command in EVERY
        for line in (command.help or "").splitlines()
        if line.strip().startswith("medforgectl ") and not line.strip().startswith(OF_THE_HOST)
    }
)


@pytest.mark.parametrize(("path", "command"), EVERY, ids=lambda part: " ".join(part) if isinstance(part, tuple) else "")
def test_help_everywhere_with_examples(medforgectl: Medforgectl, path: tuple[str, ...], command: click.Command) -> None:
    done = medforgectl(*path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"Examples:\n +medforgectl " + " ".join(path), done.stdout)
    assert done.stdout == medforgectl(*path, "-h").stdout
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{option.name} says nothing about itself"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= len(EVERY) - len(OF_THE_HOST)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_do_what_they_say(
    request: pytest.FixtureRequest, daemon: ScriptedDaemon, medforgectl: Medforgectl, example: str
) -> None:
    for slug in ("abcd2345", "efgh6723"):
        session = daemon.add(slug=slug)
        daemon.ends[session.id] = SessionStatus.STOPPED
        daemon.logs[session.id] = "ready\n"
    daemon.gpus = GpuList(gpus=[make_gpu(3, uuid="GPU-5d2f8a1e-0c6b-4f0e-9a37-2b8e6c1d4f70")], faults=[])
    daemon.orphans = [Orphan(kind=OrphanKind.PORT, name="veth1a2b3c4", reason="it leads to no container")]
    if " users " in example:
        facade: OperatedFacade = request.getfixturevalue("facade")
        for name in ("root", "ada", "bob") if " create " not in example else ("root",):
            facade.add(f"{name}@example.org", is_admin=name == "root")
    arguments = shlex.split(re.split(r" [|>] ", example)[0])[1:]
    done = medforgectl(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    if "json" in arguments:
        json.loads(done.stdout)


def test_version(medforgectl: Medforgectl) -> None:
    assert medforgectl("--version").stdout == f"medforgectl {__version__}\n"


def test_the_default_socket_is_the_clients(medforgectl: Medforgectl) -> None:
    assert str(DEFAULT_SOCKET) in medforgectl("--help").stdout


def test_the_default_operator_socket_is_beside_it(medforgectl: Medforgectl) -> None:
    assert DEFAULT_OPERATOR_SOCKET.parent == DEFAULT_SOCKET.parent
    assert "operators.sock beside the daemon's socket" in " ".join(medforgectl("--help").stdout.split())


def test_help_loads_neither_the_client_nor_the_tables(medforgectl: Medforgectl) -> None:
    medforgectl.argv[2] = (
        "import sys; from cli.main import run; code = run(); print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    loaded = set(medforgectl("--help").stderr.split())
    assert {"click", "cli.main"} <= loaded
    assert not loaded & {"aiohttp", "medforged.client", "rich"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(medforgectl: Medforgectl, shell: str) -> None:
    done = medforgectl("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_MEDFORGECTL_COMPLETE" in done.stdout


def test_bash_accepts_its_script(medforgectl: Medforgectl) -> None:
    script = medforgectl("completion", "bash").stdout + "\ncomplete -p medforgectl\n"
    done = subprocess.run(["bash", "--norc"], input=script, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split()[-1] == "medforgectl"
    assert done.stderr == ""


def completed(medforgectl: Medforgectl, line: str) -> list[str]:
    words = ["medforgectl", *medforgectl.argv[3:], *line.split(" ")]
    medforgectl.argv[3:] = []
    medforgectl.environment |= {
        "_MEDFORGECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = medforgectl()
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sess", ["sessions"]),
        ("sessions l", ["logs", "ls"]),
        ("gpus -o j", ["json"]),
        ("gpus ", ["disable", "enable", "ls", "recheck"]),
        ("completion f", ["fish"]),
        ("users ", ["create", "logout", "ls", "password", "set"]),
        ("cleanup --f", ["--force"]),
    ],
)
def test_words_are_completed(medforgectl: Medforgectl, line: str, expected: list[str]) -> None:
    assert sorted(completed(medforgectl, line)) == expected


def test_slugs_of_active_sessions_are_completed(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    for slug in ("abcd2345", "abzz2345", "zzzz2345"):
        daemon.add(slug=slug)
    daemon.add(SessionStatus.STOPPED, slug="abqq2345")
    assert sorted(completed(medforgectl, "sessions stop abzz2345 ab")) == ["abcd2345"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("users set ada", ["ada@example.org", "adam@example.org"]), ("users logout B", ["bob@example.org"])],
)
def test_addresses_are_completed(
    facade: OperatedFacade, medforgectl: Medforgectl, line: str, expected: list[str]
) -> None:
    for email in ("ada@example.org", "adam@example.org", "bob@example.org"):
        facade.add(email)
    assert sorted(completed(medforgectl, line)) == expected


@pytest.mark.parametrize("line", ["sessions show ab", "gpus enable ", "users set a"])
def test_nothing_is_completed_where_no_daemon_answers(medforgectl: Medforgectl, line: str) -> None:
    assert completed(medforgectl, line) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gpus enable ", ["1", "12", "3"]),
        ("gpus disable 1", ["1", "12"]),
        ("gpus recheck G", ["GPU-aa", "GPU-ab"]),
        ("gpus recheck GPU-ab", ["GPU-ab"]),
    ],
)
def test_gpus_are_completed(daemon: ScriptedDaemon, medforgectl: Medforgectl, line: str, expected: list[str]) -> None:
    known = [make_gpu(1, uuid="GPU-aa"), make_gpu(3, uuid="GPU-ab"), make_gpu(12, uuid="GPU-$(reboot)")]
    daemon.gpus = GpuList(gpus=known, faults=[])
    assert sorted(completed(medforgectl, line)) == expected
