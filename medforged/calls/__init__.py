"""Answering calls on a Unix socket, for whoever the kernel says has connected. A leaf that daemon and facade share."""
