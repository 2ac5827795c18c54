"""Owns which image a digest-pinned reference means on this host."""

from __future__ import annotations

import re
from typing import Any

from docker.errors import ImageNotFound, NotFound

from medforged.adapters.docker.answers import whole
from medforged.domain.errors import ContainerError

__all__ = ["ImageIndex", "PinnedImage", "parse_image"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The part before the digest goes into the path of a request: nothing that could climb in it.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")


class PinnedImage:
    """A reference `[repository[:tag]@]sha256:…`; the digest says everything, the tag is for people to read."""

    def __init__(self, repository: str | None, digest: str) -> None:
        self.repository = repository
        self.digest = digest

    @property
    def by_repository(self) -> str | None:
        """The name under which an image that came from a registry is found."""
        return f"{self.repository}@{self.digest}" if self.repository else None


def parse_image(image: str) -> PinnedImage:
    """Raises ContainerError for a reference that names no digest, which could be another image tomorrow."""
    name, at, digest = image.rpartition("@")
    if not _DIGEST.fullmatch(digest):
        raise ContainerError(
            f"cannot use image {image!r}: it is not pinned by digest; write name@sha256:… "
            "(`docker image inspect` shows it as a RepoDigest, or as the Id of an image built on this host)"
        )
    if not at:
        return PinnedImage(None, digest)
    head, slash, last = name.rpartition("/")
    repository = f"{head}{slash}{last.partition(':')[0]}"
    if not _REPOSITORY.fullmatch(repository):
        raise ContainerError(f"cannot use image {image!r}: {repository!r} is not the name of a repository")
    return PinnedImage(repository, digest)


class ImageIndex:
    """Remembers which image id a reference means: by content it can never be another one, it can only be gone."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def resolve(self, client: Any, image: str) -> str:
        """The engine's id of the image. Raises ContainerError when it is not on this host; nothing is ever pulled."""
        known = self._ids.get(image)
        if known is None:
            known = self._ids[image] = self._find(client, image, parse_image(image))
        return known

    def known(self, image: str) -> str | None:
        """The id if it has been resolved before and has not been found missing since."""
        return self._ids.get(image)

    def forget(self, image_id: str) -> None:
        """The engine says that this image is gone."""
        self._ids = {image: known for image, known in self._ids.items() if known != image_id}

    def _find(self, client: Any, image: str, pinned: PinnedImage) -> str:
        # An image from a registry is known by the digest of its manifest; one that was built here has only an id.
        for reference in (pinned.by_repository, pinned.digest):
            if reference is None:
                continue
            try:
                answer = whole(client.inspect_image(reference), f"image {reference}")
            except (ImageNotFound, NotFound):
                continue
            digests = [str(digest).rpartition("@")[2] for digest in answer.get("RepoDigests") or ()]
            if answer.get("Id") == pinned.digest or pinned.digest in digests:
                return str(answer["Id"])
        remedy = f"`docker pull {pinned.by_repository}`, or build it on this host" if pinned.repository else "build it"
        raise ContainerError(f"cannot use image {image}: it is not on this host; {remedy}")
