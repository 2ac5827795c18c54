"""Reading settings: precedence, and one clear sentence for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from medforged.config import Settings, load_settings, packs_of
from medforged.configuration import ConfigurationError, load

pytestmark = pytest.mark.unit

PINNED = f"pack@sha256:{'a' * 64}"


class Part(msgspec.Struct, frozen=True):
    number: int = 3
    text: str = "x"
    names: list[str] = []


class Whole(msgspec.Struct, frozen=True):
    part: Part = Part()


def read(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Whole:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return load(path, Whole, environ or {}, "TEST_", {"NUMBER": "part.number"})


def test_the_environment_overrides_the_file_which_overrides_defaults(tmp_path: Path) -> None:
    whole = read(tmp_path, "[part]\nnumber = 5\n", {"TEST_PART__NAMES": "a, b,", "OTHER": "1"})
    assert whole == Whole(Part(5, "x", ["a", "b"]))
    assert read(tmp_path, "[part]\nnumber = 5\n", {"NUMBER": "7"}).part.number == 7
    assert load(None, Whole, {}, "TEST_") == Whole()


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        (
            "\n[part]\nnumber = 1\nnumbr = 2\n",
            {},
            r"settings\.toml:4: unknown key part\.numbr; the keys of \[part\] are",
        ),
        ("[prat]\n", {}, r"settings\.toml:1: unknown section \[prat\]; the sections are part"),
        ("part = 3\n", {}, r"settings\.toml:1: part is a section; write \[part\]"),
        ("[part]\ntext = 'y'\nnumber = 'many'\n", {}, r"settings\.toml:3: part\.number: Expected `int`"),
        ("[part]\nnames = [1]\n", {}, r"settings\.toml:2: part\.names\[0\]: Expected `str`"),
        ("part.number = true\n", {}, r"settings\.toml:1: part\.number: Expected `int`, got `bool`"),
        ("[part\n", {}, r"cannot read the configuration .*settings\.toml: .*line 1"),
        ("", {"TEST_PART__NUMBER": "1x"}, r"environment variable TEST_PART__NUMBER: part\.number: Expected `int`"),
        ("", {"TEST_PART__NUMBR": "1"}, r"unknown environment variable TEST_PART__NUMBR"),
        ("", {"TEST_NONSENSE": "1"}, r"unknown environment variable TEST_NONSENSE"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, text: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, text, environ)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory; create it or name another with --config"):
        load(tmp_path / "none.toml", Whole, {}, "TEST_")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(tmp_path / "latin.toml", Whole, {}, "TEST_")


def test_the_daemons_defaults_are_valid() -> None:
    assert load_settings(None, {}) == Settings()


def test_the_documented_variables_reach_their_settings() -> None:
    settings = load_settings(
        None,
        {"SESSION_POLL_INTERVAL_SECONDS": "1.5", "SESSION_POLL_BACKOFF_MAX_SECONDS": "9", "PACK_IMAGE": PINNED},
    )
    assert (settings.sessions.poll_interval_seconds, settings.sessions.poll_backoff_max_seconds) == (1.5, 9)
    assert packs_of(settings)[0].image == PINNED


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MEDFORGED_PACKS__DEFAULT_IMAGE", "pack:latest", "not pinned by digest"),
        ("MEDFORGED_PACKS__DEFAULT_IMAGE", f"@sha256:{'a' * 64}", "not pinned by digest"),
        ("MEDFORGED_PACKS__DEFAULT_IMAGE", f"pack@sha256:{'A' * 64}", "not pinned by digest"),
        ("MEDFORGED_NETWORK__SUBNET", "172.30.0.1/24", "has host bits set"),
        ("MEDFORGED_NETWORK__SUBNET", "172.30.0.0/30", "between a /16 and a /26"),
        ("MEDFORGED_NETWORK__PROXY_ADDRESS", "172.30.0.1", "one of the addresses 2 to 15"),
        ("MEDFORGED_NETWORK__PROXY_ADDRESS", "172.30.0.200", "one of the addresses 2 to 15"),
        ("MEDFORGED_NETWORK__BRIDGE", "a-name-that-is-too-long", "matching regex"),
        ("MEDFORGED_WORKSPACES__POOL", "-o", "not a dataset's name"),
        ("MEDFORGED_WORKSPACES__ROOT", "a/../b", "not a dataset's name"),
        ("MEDFORGED_CONTAINERS__MEMORY_BYTES", "1", ">= 67108864"),
        ("MEDFORGED_ADAPTERS__CONTAINERS", "podman", "podman"),
        ("MEDFORGED_DAEMON__INSTANCE", "Bad_Name", "matching regex"),
    ],
)
def test_settings_that_cannot_work_are_refused(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(None, {variable: value})


def test_additional_packs_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "medforged.toml"
    pack = '[[packs.additional]]\nid = "{}"\nname = "r"\nimage = "{}"\n'
    path.write_text(pack.format("7e0a7a53-2f5c-4c5f-9f6e-000000000001", PINNED))
    assert [p.name for p in packs_of(load_settings(path, {}))] == ["r"]
    path.write_text(pack.format("seven", PINNED))
    with pytest.raises(ConfigurationError, match="'seven' of pack 'r' is not a UUID"):
        load_settings(path, {})
    path.write_text(pack.format("00000000-0000-0000-0000-000000000100", PINNED))
    with pytest.raises(ConfigurationError, match="same id"):
        load_settings(path, {"PACK_IMAGE": PINNED})
