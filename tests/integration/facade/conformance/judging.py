"""Compares an answer with what the table says of it, in everything that a caller can see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

from tests.integration.facade.conformance.expectations import BARE, LEGEND, STRICT, Expected, Refusal
from tests.integration.facade.conformance.variants import Sent
from tests.integration.facade.conftest import Answer

__all__ = ["Judge"]


class Judge:
    """Knows the document that is served: good answers have the bodies that it promises, and no field more."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = _closed(document)

    def faults(self, where: tuple[str, str], sent: Sent, answer: Answer, cell: str, told: Expected) -> list[str]:
        """Everything in which the answer differs from the table."""
        if cell in LEGEND:
            return list(self._refused(sent, answer, LEGEND[cell], told))
        return list(self._good(where, answer, int(cell), told))

    def _refused(self, sent: Sent, answer: Answer, refusal: Refusal, told: Expected) -> Iterator[str]:
        if answer.status != refusal.status:
            yield f"status {answer.status}, not {refusal.status}: {answer.body[:200]!r}"
            return
        headers = {**refusal.headers, **({"Allow": told.allow} if refusal.status == 405 else {})}
        yield from _headers(answer, {*BARE, *STRICT, "Content-Type", *headers})
        for name, value in {**headers, "Content-Type": "application/problem+json"}.items():
            if answer.headers.get(name) != value:
                yield f"{name}: {answer.headers.get(name)}, not {value}"
        document = answer.json
        for name in ("status", "type", "code", "title", "detail"):
            if document.get(name) != getattr(refusal, name):
                yield f"{name} is {document.get(name)!r}, not {getattr(refusal, name)!r}"
        if document.get("request_id") != answer.headers.get("X-Request-ID"):
            yield "request_id is not the header's"
        if not str(document.get("instance", "")).startswith("/"):
            yield f"instance is {document.get('instance')!r}"
        errors = document.get("errors", [])
        if bool(errors) != bool(refusal.kinds) or not {error["type"] for error in errors} <= set(refusal.kinds):
            yield f"errors are {errors}, not of {refusal.kinds}"
        found = {tuple(error["loc"][: len(error["loc"])]) for error in errors}
        missing = [place for place in sent.locations if not any(loc[: len(place)] == place for loc in found)]
        if refusal.kinds and missing:
            yield f"errors are at {found}, not at {missing}"

    def _good(self, where: tuple[str, str], answer: Answer, status: int, told: Expected) -> Iterator[str]:
        if answer.status != status:
            yield f"status {answer.status}, not {status}: {answer.body[:200]!r}"
            return
        verb, path = where
        promised = self._document["paths"][path][verb.lower()]["responses"].get(str(status))
        if promised is None:
            yield f"the document knows no {status}"
            return
        content = promised.get("content", {})
        seen = frozenset() if "X-Upstream" in told.headers else STRICT
        yield from _headers(answer, {*BARE, *seen, *told.headers, *(["Content-Type"] if content else [])})
        if not content:
            if answer.body:
                yield f"a body: {answer.body[:100]!r}"
            return
        media = answer.headers["Content-Type"].partition(";")[0]
        if media not in content:
            yield f"a body of {media}, which the document does not know"
        elif media == "application/json":
            schema = {**content[media]["schema"], "components": self._document["components"]}
            yield from (error.message for error in Draft202012Validator(schema).iter_errors(answer.json))


def _headers(answer: Answer, wanted: set[str]) -> Iterator[str]:
    found = {name.title() for name in answer.headers}
    expected = {name.title() for name in wanted}
    if found != expected:
        yield f"headers: {sorted(found - expected)} too many, {sorted(expected - found)} missing"


def _closed(node: Any) -> Any:
    """The same schemas, in which an object has no field that is not named."""
    if isinstance(node, list):
        return [_closed(part) for part in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed
