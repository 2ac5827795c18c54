"""The web facade: accounts, cookies and the public HTTP API; an unprivileged client of the daemon's socket."""
