"""Owns the blocking calls about containers: each finds out first whether the container is this installation's own."""

from __future__ import annotations

import math
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound

from medforged.adapters.docker import labels
from medforged.adapters.docker.answers import (
    Answer,
    Senseless,
    container_info,
    container_labels,
    container_summaries,
    image_id,
    is_named,
    whole,
)
from medforged.adapters.docker.creation import GpuInjection, creation_request
from medforged.adapters.docker.engine import Connection
from medforged.adapters.docker.failures import explanation, is_absent
from medforged.adapters.docker.images import ImageIndex
from medforged.adapters.docker.mounts import read_propagation
from medforged.domain.containers import ContainerInfo, ContainerSpec, ContainerState, ContainerSummary
from medforged.domain.errors import ContainerError, ContainerMissing

__all__ = ["MAX_LOG_BYTES", "EngineContainers", "readable"]

MAX_LOG_BYTES = 1 << 20


class EngineContainers:
    """Blocking calls about containers. Raises ContainerError and its kin, and what docker-py raises.

    Actions go to ids and not to names: a name can be taken over by another container between the look and the act,
    an id cannot, and what an id's labels say never changes.
    """

    def __init__(self, instance: str, images: ImageIndex, injection: GpuInjection | None) -> None:
        self._instance = instance
        self._images = images
        self._injection = injection
        self._own_ids: dict[str, str] = {}  # name -> id of a container of ours, to spare `start` a look

    def create(self, at: Connection, spec: ContainerSpec) -> str:
        if at.maps_users:
            raise ContainerError(
                f"cannot create container {spec.name}: the container engine maps user ids (userns-remap), and "
                "workspaces belong to 1000:1000 of the host; take userns-remap out of the engine's configuration"
            )
        pinned = self._images.resolve(at.client, spec.image)
        request = creation_request(
            spec,
            instance=self._instance,
            image_id=pinned,
            propagation=read_propagation(spec.workspace),
            injection=self._injection or (GpuInjection.CDI if at.has_cdi else GpuInjection.HOOK),
        )
        identity = self._create(at.client, spec, request) or self._create(at.client, spec, request)
        if identity is None:
            raise ContainerError(
                f"cannot create container {spec.name}: somebody else keeps creating and removing one of this name"
            )
        self._own_ids[spec.name] = identity
        return identity

    def _create(self, client: Any, spec: ContainerSpec, request: dict[str, Any]) -> str | None:
        """None when the name was taken, and then no longer."""
        try:
            return str(client.create_container_from_config(request, spec.name)["Id"])
        except ImageNotFound as error:
            self._images.forget(request["Image"])
            raise ContainerError(
                f"cannot create container {spec.name}: image {spec.image} has been removed from this host; "
                "pull or build it again"
            ) from error
        except APIError as error:
            if error.status_code != 409 or "already in use" not in explanation(error):
                raise
        existing = self._find(client, spec.name)
        if existing is None:
            return None
        found = container_info(spec.name, existing)
        if found.session_id != spec.session_id:
            raise ContainerError(
                f"cannot create container {spec.name}: one of this name exists for session {found.session_id}; "
                "see `medforgectl cleanup`"
            )
        return found.id

    def start(self, at: Connection, name: str) -> ContainerInfo:
        known = self._own_ids.get(name)
        if known is None or not self._started(at.client, known):
            identity = str(self._existing(at.client, name)["Id"])
            if not self._started(at.client, identity):
                raise ContainerMissing(f"cannot start container {name}: it does not exist")
            self._own_ids[name] = known = identity
        info = container_info(name, self._existing(at.client, name, known))
        if info.state is not ContainerState.RUNNING:
            status = "" if info.exit_code is None else f" with status {info.exit_code}"
            raise ContainerError(
                f"cannot start container {name}: its program ended at once{status}; see `docker logs {name}`"
            )
        return info

    def _started(self, client: Any, identity: str) -> bool:
        try:
            client.start(identity)
        except NotFound as error:
            if not is_absent(error, "container"):
                raise  # its network is missing, for example
            return False
        return True

    def stop(self, at: Connection, name: str, grace_seconds: float) -> None:
        existing = self._find(at.client, name)
        if existing is None or not _may_run(container_info(name, existing)):
            return
        try:
            at.client.stop(existing["Id"], timeout=math.ceil(grace_seconds))
            after = at.client.inspect_container(existing["Id"])
        except NotFound as error:
            if is_absent(error, "container"):
                return
            raise
        if _may_run(container_info(name, after)):
            raise ContainerError(
                f"cannot stop container {name}: its processes did not end when killed; a process that waits for a "
                "broken device cannot end, see `ps` for state D"
            )

    def remove(self, at: Connection, name: str) -> None:
        existing = self._find(at.client, name)
        self._own_ids.pop(name, None)
        if existing is None:
            return
        try:
            # `v`: with the anonymous volumes that an image's VOLUME lines made.
            at.client.remove_container(existing["Id"], v=True, force=True)
        except APIError as error:
            if is_absent(error, "container"):
                return
            if error.status_code != 409 or "already in progress" not in explanation(error):
                raise
            self._wait_removed(at.client, existing["Id"])

    def _wait_removed(self, client: Any, identity: str) -> None:
        try:
            client.wait(identity, condition="removed")
        except NotFound as error:
            if not is_absent(error, "container"):
                raise

    def inspect(self, at: Connection, name: str) -> ContainerInfo:
        try:
            existing = self._find(at.client, name)
        except Senseless:
            return ContainerInfo(name, ContainerState.UNKNOWN)
        return ContainerInfo(name, ContainerState.MISSING) if existing is None else container_info(name, existing)

    def list(self, at: Connection) -> tuple[ContainerSummary, ...]:
        answer = at.client.containers(all=True, filters={"label": [f"{labels.INSTANCE}={self._instance}"]})
        return container_summaries(answer, self._instance)

    def logs(self, at: Connection, name: str, lines: int) -> str:
        if lines < 1:
            return ""
        identity = self._existing(at.client, name)["Id"]
        try:
            return readable(at.client.logs(identity, tail=lines))
        except NotFound as error:
            raise ContainerMissing(f"cannot read the log of container {name}: it does not exist") from error

    def _existing(self, client: Any, name: str, identity: str | None = None) -> Answer:
        found = self._find(client, name, identity)
        if found is None:
            raise ContainerMissing(f"cannot find container {name}: it does not exist")
        return found

    def _find(self, client: Any, name: str, identity: str | None = None) -> Answer | None:
        """The container of this name, or id. Raises ContainerError for one that is not ours."""
        try:
            answer = whole(client.inspect_container(identity or name), name)
        except NotFound:
            return None
        if identity is None and not is_named(answer, name):
            return None
        if not self._is_ours(answer):
            raise ContainerError(
                f"cannot touch container {name}: it was not made by this installation; remove or rename it"
            )
        return answer

    def _is_ours(self, answer: Answer) -> bool:
        return labels.is_ours(container_labels(answer), instance=self._instance, image_id=image_id(answer))


def readable(output: bytes) -> str:
    """The end of a container's output as text, of at most MAX_LOG_BYTES in UTF-8."""
    text = output[-MAX_LOG_BYTES:].decode(errors="replace")
    # A byte that is no text becomes a replacement of three.
    return text.encode()[-MAX_LOG_BYTES:].decode(errors="ignore")


def _may_run(info: ContainerInfo) -> bool:
    return info.state in (ContainerState.RUNNING, ContainerState.UNKNOWN)
