"""The packet filter layer of isolation, through python-iptables (docs/explanation/isolation.md)."""
