"""Isolation on a real host: both layers, and a probe with live traffic (docs/explanation/isolation.md)."""

from medforged.adapters.isolation.eastwest import LAYERS, EastWestIsolation

__all__ = ["LAYERS", "EastWestIsolation"]
