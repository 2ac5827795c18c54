"""One noun, one file name: a thing has the same name in every layer, so that anyone finds any line by it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import pytest

from medforged.contract.methods import METHODS
from tests.architecture.tree import PRODUCT, tracked

pytestmark = pytest.mark.unit

METHOD_NOUNS = {method.name.partition(".")[0] for method in METHODS}


def names_in(folder: str) -> set[str]:
    """The names of the modules right in a folder."""
    inside = [path for path in tracked() if str(path.parent) == folder and path.suffix == ".py"]
    return {path.stem for path in inside} - {"__init__", "conftest"}


def in_the_other_number(nouns: set[str], paths: Iterable[PurePosixPath]) -> list[str]:
    """Modules and packages that are called by the singular of a noun that is a plural here, or the other way round."""
    known = {part for path in paths for part in (*path.parts[:-1], path.stem)}
    return sorted(name for name in known if f"{name}s" in nouns or name.removesuffix("s") in nouns - {name})


def test_methods_have_types_and_handlers_under_their_noun() -> None:
    assert names_in("medforged/rpc/handlers") == METHOD_NOUNS
    assert names_in("medforged/contract") >= METHOD_NOUNS


def test_the_hosts_nouns_are_the_same_from_domain_to_port() -> None:
    nouns = {"gpus", "workspaces", "containers", "isolation"}
    for folder in ("medforged/domain", "medforged/ports"):
        assert names_in(folder) >= nouns


def test_ports_with_several_adapters_have_a_conformance_suite_and_a_fake() -> None:
    ports = names_in("medforged/ports") & names_in("medforged/adapters/simulated")
    assert ports >= {"gpus", "workspaces", "containers", "isolation"}
    assert {f"test_{port}" for port in ports} - names_in("tests/conformance") == set()
    assert ports - names_in("tests/fakes") == set()


def test_no_noun_in_the_other_number() -> None:
    nouns = names_in("medforged/domain") | names_in("medforged/ports") | names_in("medforged/contract")
    product = [path for path in tracked() if path.parts[0] in PRODUCT and path.suffix == ".py"]
    assert in_the_other_number(nouns, product) == []


def test_a_noun_in_the_other_number_is_seen() -> None:
    paths = [PurePosixPath(path) for path in ("a/gpus.py", "b/gpu.py", "c/process.py", "states/d.py", "state.py")]
    assert in_the_other_number({"gpus", "state"}, paths) == ["gpu", "states"]
