"""Owns /docs: the OpenAPI document as one page of HTML that needs no script and nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Any

from facade.openapi.schemas import code, component, fields, prose, words

__all__ = ["CONTENT_SECURITY_POLICY", "page"]

_STYLE = resources.files("facade.openapi").joinpath("page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Json = dict[str, Any]
# Verb, path, and what the document says of them.
Operation = tuple[str, str, Json]


def page(document: Json) -> str:
    """The whole page: what there is on the left, every operation and every type on the right."""
    info, components = document["info"], document["components"]
    operations = list(_operations(document))
    common = _common(operations)
    body = [
        _header(info, document["openapi"]),
        *(f"<p>{prose(block)}</p>" for block in info["description"].strip().split("\n\n")),
        '<h2 id="security">Who is asking</h2><dl>',
        *(
            f"<dt>{escape(name)}</dt><dd>{prose(scheme['description'])}</dd>"
            for name, scheme in components["securitySchemes"].items()
        ),
        '</dl><h2 id="common">What every operation can answer</h2>',
        f"<section>{_answers(common)}</section>",
    ]
    for tag in document["tags"]:
        body.append(f'<h2 id="tag-{escape(tag["name"])}">{escape(tag["description"])}</h2>')
        body += [_section(*found, common) for found in operations if tag["name"] in found[2]["tags"]]
    body.append('<h2 id="types">Types</h2>')
    body += [_type(name, schema) for name, schema in components["schemas"].items()]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head>"
        f'<body><nav aria-label="Operations">{_contents(document, operations)}</nav>'
        f"<main>{''.join(body)}</main></body></html>"
    )


def _header(info: Json, openapi: str) -> str:
    versions = f"Version {escape(info['version'])} · OpenAPI {escape(openapi)}"
    link = '<a href="/api/v1/openapi.json">openapi.json</a>'
    return f"<header><h1>{escape(info['title'])} API</h1><p>{versions} · {link}</p></header>"


def _common(operations: list[Operation]) -> Json:
    """The answers that every operation can give, told once instead of everywhere."""
    told = [operation["responses"] for _, _, operation in operations]
    return {
        status: response
        for status, response in told[0].items()
        if all(set(_details(response)) <= set(_details(other.get(status, {}))) for other in told)
    }


def _details(response: Json) -> list[str]:
    """What the answers of one status say."""
    return str(response.get("description", "")).split(" · ")


def _operations(document: Json) -> Iterator[Operation]:
    """Verb, path and operation, with the parameters that the path has for all of its verbs."""
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if verb != "parameters":
                parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
                yield verb.upper(), path, {**operation, "parameters": parameters}


def _contents(document: Json, operations: list[Operation]) -> str:
    parts = [
        '<p><a href="#security">Who is asking</a></p>',
        '<p><a href="#common">What every operation can answer</a></p>',
    ]
    for tag in document["tags"]:
        entries = "".join(
            f'<li><a href="#{operation["operationId"]}">{_verb(verb)} {_path(path)}</a></li>'
            for verb, path, operation in operations
            if tag["name"] in operation["tags"]
        )
        parts.append(f'<p><a href="#tag-{escape(tag["name"])}">{escape(tag["description"])}</a></p><ul>{entries}</ul>')
    types = "".join(f"<li>{component(name)}</li>" for name in document["components"]["schemas"])
    return "".join(parts) + f'<p><a href="#types">Types</a></p><ul>{types}</ul>'


def _section(verb: str, path: str, operation: Json, common: Json) -> str:
    parts = [
        f'<h3><a href="#{operation["operationId"]}">{_verb(verb)} {_path(path)}</a></h3>',
        f'<p>{prose(operation["summary"])}.</p><p class="who">{prose(operation["description"])}</p>',
    ]
    if operation["parameters"]:
        properties = {
            parameter["name"]: {**parameter["schema"], "description": _parameter(parameter)}
            for parameter in operation["parameters"]
        }
        parts.append("<h4>Parameters</h4>" + fields({"properties": properties, "required": list(properties)}))
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"<h4>Body</h4><p>{words(schema)}</p>")
    own = {
        status: told
        for status, told in operation["responses"].items()
        if status not in common or _details(told) != _details(common[status])
    }
    parts.append(f"<h4>Answers</h4>{_answers(own)}")
    return f'<section id="{operation["operationId"]}">{"".join(parts)}</section>'


def _parameter(parameter: Json) -> str:
    return " ".join(part for part in (f"In the {parameter['in']}.", parameter.get("description", "")) if part)


def _answers(responses: Json) -> str:
    rows = "".join(_answer(status, told) for status, told in responses.items())
    return f'<table class="answers"><tbody>{rows}</tbody></table>'


def _answer(status: str, told: Json) -> str:
    """One status: what it means, what it looks like."""
    parts = []
    for media, content in told.get("content", {}).items():
        shape = _shape(content["schema"])
        parts.append(f'<p class="shape">{code(media)}: {shape}</p>')
        if examples := content.get("examples"):
            shown = "".join(f"<pre>{escape(json.dumps(e['value'], indent=2))}</pre>" for e in examples.values())
            count = f"{len(examples)} example{'s' * (len(examples) > 1)}"
            parts.append(f"<details><summary>{count}</summary>{shown}</details>")
    headers = ", ".join(code(name) for name in told["headers"] if name != "X-Request-ID")
    parts.append(f'<p class="shape">Headers: {headers}</p>' if headers else "")
    kind = "good" if status < "400" else "bad"
    described = "<br>".join(prose(line) for line in _details(told))
    return f'<tr><td class="{kind}">{status}</td><td>{described}{"".join(parts)}</td></tr>'


def _shape(schema: Json) -> str:
    """What is in the envelope is what matters; everybody knows the envelope."""
    if set(schema.get("properties", ())) == {"data", "meta"}:
        return f"{code('data')} is {words(schema['properties']['data'])}"
    return words(schema)


def _type(name: str, schema: Json) -> str:
    described = f"<p>{prose(schema['description'])}</p>" if "description" in schema else ""
    table = fields(schema)
    shape = "" if table or "properties" in schema else f"<p>{words(schema)}</p>"
    return f'<section id="type-{escape(name)}"><h3>{escape(name)}</h3>{described}{table}{shape}</section>'


def _verb(verb: str) -> str:
    return f'<span class="verb {verb.lower()}">{verb}</span>'


def _path(path: str) -> str:
    """Broken where a reader would break it."""
    return code(path).replace("/", "/<wbr>").replace("<wbr>code>", "code>")
