"""Owns what is asked of the engine's events, and the reading of each: pure functions.

Everything about containers and networks is asked for, and sorted out here. The engine's label filter cannot do it: an
event of a network carries no labels, not even those that the network has, and so a filter by label leaves every one of
them out (moby's `Filter.matchLabels`; seen with Docker 20.10).
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from medforged.adapters.docker import labels
from medforged.adapters.docker.answers import Senseless, part, whole
from medforged.domain.containers import ContainerEvent, ContainerEventKind

__all__ = ["container_event", "events_request"]

_SUBJECT = "what happens"
_OF_CONTAINERS = {
    kind.value: kind
    for kind in (
        ContainerEventKind.START,
        ContainerEventKind.DIE,
        ContainerEventKind.OOM,
        ContainerEventKind.KILL,
        ContainerEventKind.DESTROY,
    )
}
_OF_NETWORKS = frozenset({"create", "destroy", "connect", "disconnect"})


def events_request(api_version: str, since: float) -> str:
    """The path of the request for all events from `since` on, in seconds since 1970, and until the connection ends."""
    filters = {"type": ["container", "network"], "event": sorted({*_OF_CONTAINERS, *_OF_NETWORKS})}
    return f"/v{api_version}/events?{urlencode({'since': f'{since:.9f}', 'filters': json.dumps(filters)})}"


def container_event(line: bytes, instance: str) -> ContainerEvent | None:
    """What a line of the stream says to this installation; None for what does not concern it. Raises Senseless."""
    try:
        event = whole(json.loads(line), _SUBJECT)
    except (ValueError, RecursionError) as error:
        raise Senseless(_SUBJECT) from error
    kind, action, attributes = event.get("Type"), event.get("Action"), part(part(event, "Actor"), "Attributes")
    if not isinstance(kind, str) or not isinstance(action, str):
        raise Senseless(_SUBJECT)
    if kind == "network" and action in _OF_NETWORKS:
        return ContainerEvent(ContainerEventKind.NETWORK, _name(attributes.get("name")))
    if kind != "container" or action not in _OF_CONTAINERS:
        return None
    # Here the labels are among the attributes, and `name` and `image` always the engine's own, whatever labels say.
    told = {str(key): str(value) for key, value in attributes.items()}
    if not labels.is_ours(told, instance=instance, image_id=told.get("image", "")):
        return None
    return ContainerEvent(_OF_CONTAINERS[action], _name(attributes.get("name")), labels.session_id(told))


def _name(found: object) -> str:
    if not isinstance(found, str) or not found:
        raise Senseless(_SUBJECT)
    return found
