"""The programs that copy and remove what tenants have made."""

from __future__ import annotations

import os

import pytest

from medforged.adapters.directories.copying import copy_command, remove_command
from medforged.adapters.owned_directory import Owner

pytestmark = pytest.mark.unit


def test_copies_as_the_owner_without_any_privilege() -> None:
    argv = copy_command("a", "b", Owner(os.geteuid() + 1, 77))
    assert argv[0] == "setpriv"
    dropped = set(argv[1 : argv.index("--")])
    assert dropped >= {f"--reuid={os.geteuid() + 1}", "--regid=77", "--clear-groups", "--no-new-privs"}
    assert argv[argv.index("--") + 1] == "cp"


def test_copies_as_ourselves_where_we_are_the_owner() -> None:
    assert copy_command("a", "b", Owner(os.geteuid(), os.getegid()))[0] == "cp"


def test_names_are_never_options() -> None:
    for argv in (copy_command("-r", "--help", Owner(1, 1)), remove_command("--help")):
        assert "--" in argv[: argv.index("--help")]
        assert argv[-1] == "--help"


def test_links_are_not_followed_and_other_file_systems_are_left_out() -> None:
    argv = copy_command("a", "b", Owner(1, 1))
    assert "--archive" in argv  # implies --no-dereference
    assert not {"--dereference", "-L", "-H"} & set(argv)
    assert "--one-file-system" in argv
    assert "--one-file-system" in remove_command("a")
