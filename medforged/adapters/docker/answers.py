"""Owns the reading of the engine's answers about containers: pure functions that never trust a field to be there.

An inspection that makes no sense is UNKNOWN, for there is a name to say it of. A listing that makes no sense is an
error as a whole: to leave a container out would say that it does not exist.

How the engine's states map to the port's:

created                  CREATED
running                  RUNNING
paused                   RUNNING: its processes exist and hold the GPU; somebody froze it on purpose, and can thaw it
exited, dead, removing   EXITED: its processes have ended, and it will not run again by itself
restarting               UNKNOWN: we never ask for restarts, so a person has changed the container's policy
anything else            UNKNOWN
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from medforged.adapters.docker import labels
from medforged.domain.containers import ContainerInfo, ContainerState, ContainerSummary
from medforged.domain.errors import ContainerError

__all__ = [
    "Answer",
    "Senseless",
    "container_info",
    "container_labels",
    "container_summaries",
    "image_id",
    "is_named",
    "part",
    "process_id",
    "whole",
]

Answer = Mapping[str, Any]


class Senseless(ContainerError):
    """The engine answered something that cannot be an answer to the question."""

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"cannot read what the container engine says about {subject}: it makes no sense; is it Docker?"
        )


_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.RUNNING,
    "exited": ContainerState.EXITED,
    "dead": ContainerState.EXITED,
    "removing": ContainerState.EXITED,
}
_LISTING = "its containers"


def container_info(name: str, answer: Answer) -> ContainerInfo:
    """A container from the answer to an inspection. Address and process id only while it runs, exit code only after."""
    state = part(answer, "State")
    known = _state(state.get("Status"))
    running = known is ContainerState.RUNNING
    identity, exit_code = answer.get("Id"), state.get("ExitCode")
    if not isinstance(identity, str) or (running and process_id(answer) is None):
        known, running = ContainerState.UNKNOWN, False
    return ContainerInfo(
        name=name,
        state=known,
        id=identity if isinstance(identity, str) else None,
        session_id=labels.session_id(container_labels(answer)),
        address=_address(answer) if running else None,
        process_id=process_id(answer) if running else None,
        exit_code=exit_code if known is ContainerState.EXITED and isinstance(exit_code, int) else None,
        oom_killed=state.get("OOMKilled") is True,
    )


def container_summaries(answer: object, instance: str) -> tuple[ContainerSummary, ...]:
    """This installation's containers in the answer to a listing, by name. Raises Senseless.

    A container without a name is left out: the engine takes it away when it begins to remove one, and nothing can be
    asked of it, or done to it, under the name that it had.
    """
    if not isinstance(answer, list):
        raise Senseless(_LISTING)
    found = [summary for entry in answer if (summary := _summary(whole(entry, _LISTING), instance)) is not None]
    return tuple(sorted(found, key=lambda summary: summary.name))


def container_labels(answer: Answer) -> Mapping[str, str]:
    """The labels of an inspected container."""
    return {str(key): str(value) for key, value in part(part(answer, "Config"), "Labels").items()}


def image_id(answer: Answer) -> str:
    """The id of the image that an inspected container was made from, or an empty string."""
    return str(answer.get("Image") or "")


def process_id(answer: Answer) -> int | None:
    """The container's first process on the host, while there is one."""
    found = part(answer, "State").get("Pid")
    return found if type(found) is int and found > 0 else None


def whole(answer: object, subject: str) -> Answer:
    """The answer, which has to be an object. Raises Senseless."""
    if not isinstance(answer, dict):
        raise Senseless(subject)
    return answer


def is_named(answer: Answer, name: str) -> bool:
    """Whether an inspected container has this name; the engine also takes the beginning of an id for one.

    Raises Senseless when it has neither this name nor such an id.
    """
    identity, found = answer.get("Id"), answer.get("Name")
    if not isinstance(identity, str) or not isinstance(found, str):
        raise Senseless(name)
    if found.removeprefix("/") == name:
        return True
    if identity.startswith(name):
        return False
    raise Senseless(name)


def part(answer: Answer, key: str) -> Answer:
    """A part of an answer that should be an object; an empty one when it is null, absent or something else."""
    found = answer.get(key)
    return found if isinstance(found, dict) else {}


def _summary(entry: Answer, instance: str) -> ContainerSummary | None:
    identity, image, names = entry.get("Id"), entry.get("ImageID"), entry.get("Names") or []
    if not isinstance(identity, str) or not isinstance(image, str) or not isinstance(names, list):
        raise Senseless(_LISTING)
    told = {str(key): str(value) for key, value in part(entry, "Labels").items()}
    # A legacy link adds the name that another container has for this one: "/other/name".
    name = next((str(found)[1:] for found in names if str(found).rfind("/") == 0), "")
    if not name or not labels.is_ours(told, instance=instance, image_id=image):
        return None
    return ContainerSummary(name, identity, _state(entry.get("State")), labels.session_id(told))


def _state(status: object) -> ContainerState:
    return _STATES.get(status, ContainerState.UNKNOWN) if isinstance(status, str) else ContainerState.UNKNOWN


def _address(answer: Answer) -> IPv4Address | None:
    # The network that it was created on: a person may have connected it to others since.
    network = part(answer, "HostConfig").get("NetworkMode")
    endpoint = part(part(part(answer, "NetworkSettings"), "Networks"), str(network))
    try:
        return IPv4Address(str(endpoint.get("IPAddress")))
    except AddressValueError:
        return None
