"""Owns adapters for a host that lacks the real thing: first-class, and none says of itself that it is real."""
