"""Owns the labels by which the daemon knows its own containers, and the rule that decides it.

An engine copies the labels of an image into every container made from it, and the answer does not say which
label came from where. So a label alone proves nothing: whoever builds an image could make other people's
containers look like ours, and have them stopped and removed. `IMAGE` closes that: it repeats the id of the
image that the container was made from. That id is a hash over the image's own labels, so no image can carry
it; and an image committed from one of our containers has another id than the label that it inherits.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from medforged.domain.containers import ContainerSpec

__all__ = ["IMAGE", "INSTANCE", "SESSION", "SLUG", "container_labels", "is_ours", "session_id"]

INSTANCE = "dev.medforge.instance"
SESSION = "dev.medforge.session"
SLUG = "dev.medforge.slug"
IMAGE = "dev.medforge.image"


def container_labels(spec: ContainerSpec, *, instance: str, image_id: str) -> dict[str, str]:
    """The labels of a session's container; they override what the image says about the same names."""
    return {INSTANCE: instance, SESSION: str(spec.session_id), SLUG: spec.slug, IMAGE: image_id}


def is_ours(labels: Mapping[str, str], *, instance: str, image_id: str) -> bool:
    """Whether a container with these labels, made from this image, was made by this installation."""
    return labels.get(INSTANCE) == instance and labels.get(IMAGE) == image_id != ""


def session_id(labels: Mapping[str, str]) -> UUID | None:
    """The session that a container says it belongs to; None when the label is absent or malformed."""
    try:
        return UUID(labels[SESSION])
    except (KeyError, ValueError):
        return None
