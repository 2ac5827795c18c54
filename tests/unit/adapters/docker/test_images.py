"""Owns the tests of image references and of what is remembered about them."""

from __future__ import annotations

from typing import Any

import pytest
from docker.errors import ImageNotFound

from medforged.adapters.docker.images import ImageIndex, parse_image
from medforged.domain.errors import ContainerError

pytestmark = pytest.mark.unit

DIGEST = f"sha256:{'ab' * 32}"
IMAGE_ID = f"sha256:{'cd' * 32}"


class FakeEngine:
    """The part of docker-py's client that images are looked up with."""

    def __init__(self, images: dict[str, dict[str, Any]]) -> None:
        self.images = images
        self.asked: list[str] = []

    def inspect_image(self, reference: str) -> dict[str, Any]:
        self.asked.append(reference)
        if reference not in self.images:
            raise ImageNotFound(f"No such image: {reference}")
        return self.images[reference]


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        (f"pack@{DIGEST}", "pack"),
        (f"pack:1.2@{DIGEST}", "pack"),
        (f"registry.example:5000/a/b_c:tag@{DIGEST}", "registry.example:5000/a/b_c"),
        (f"registry.example:5000/a@{DIGEST}", "registry.example:5000/a"),
        (DIGEST, None),
    ],
)
def test_pinned_reference(image: str, repository: str | None) -> None:
    pinned = parse_image(image)

    assert (pinned.repository, pinned.digest) == (repository, DIGEST)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "pack",
        "pack:latest",
        "pack@sha256:abc",
        f"pack@{DIGEST}0",
        f"pack@{DIGEST.upper()}",
        "pack@md5:00",
        "@",
        "x@",
    ],
)
def test_reference_that_may_change_its_meaning_is_refused(image: str) -> None:
    with pytest.raises(ContainerError, match="not pinned by digest"):
        parse_image(image)


@pytest.mark.parametrize(
    "name", ["../containers", "a/../b", "a//b", "/a", "a/", "A", "a b", "a?b", "a%2e", "-a", "a\n"]
)
def test_name_that_could_climb_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(ContainerError, match="not the name of a repository"):
        parse_image(f"{name}@{DIGEST}")


def test_image_from_a_registry_is_found_by_its_repository() -> None:
    engine = FakeEngine({f"pack@{DIGEST}": {"Id": IMAGE_ID, "RepoDigests": [f"pack@{DIGEST}"]}})

    assert ImageIndex().resolve(engine, f"pack:1@{DIGEST}") == IMAGE_ID
    assert engine.asked == [f"pack@{DIGEST}"]


def test_image_that_was_built_here_is_found_by_its_id() -> None:
    engine = FakeEngine({DIGEST: {"Id": DIGEST, "RepoDigests": []}})

    assert ImageIndex().resolve(engine, f"pack:local@{DIGEST}") == DIGEST
    assert engine.asked == [f"pack@{DIGEST}", DIGEST]


def test_answer_about_another_image_is_not_believed() -> None:
    engine = FakeEngine({f"pack@{DIGEST}": {"Id": IMAGE_ID, "RepoDigests": ["pack@sha256:00"]}})

    with pytest.raises(ContainerError, match="not on this host; `docker pull pack@"):
        ImageIndex().resolve(engine, f"pack@{DIGEST}")


def test_absent_image_is_an_error_and_is_looked_for_again() -> None:
    engine, index = FakeEngine({}), ImageIndex()
    with pytest.raises(ContainerError, match="not on this host"):
        index.resolve(engine, DIGEST)

    engine.images[DIGEST] = {"Id": DIGEST, "RepoDigests": None}

    assert index.resolve(engine, DIGEST) == DIGEST


def test_image_is_looked_up_once_until_it_is_found_missing() -> None:
    engine = FakeEngine({DIGEST: {"Id": DIGEST}})
    index = ImageIndex()
    for _ in range(3):
        index.resolve(engine, DIGEST)
    assert engine.asked == [DIGEST]
    assert index.known(DIGEST) == DIGEST

    index.forget(IMAGE_ID)
    assert index.known(DIGEST) == DIGEST
    index.forget(DIGEST)

    assert index.known(DIGEST) is None
    index.resolve(engine, DIGEST)
    assert engine.asked == [DIGEST, DIGEST]
