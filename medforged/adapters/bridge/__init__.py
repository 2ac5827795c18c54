"""The bridge layer of isolation, through pyroute2, and namespaces for probes (docs/explanation/isolation.md)."""
