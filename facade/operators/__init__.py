"""The operator socket: what operators do with accounts, without a login and without the public API."""
