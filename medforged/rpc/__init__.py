"""Driving adapter: HTTP/1.1 with JSON over the Unix socket (docs/reference/rpc.md)."""
