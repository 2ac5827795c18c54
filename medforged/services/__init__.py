"""Use cases of the daemon, written against the ports alone."""
