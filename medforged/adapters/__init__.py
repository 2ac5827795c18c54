"""Driven adapters, one package per technology; each implements ports and raises the domain's errors only."""
