"""medforgectl, the operator's command line: a client of the daemon's socket that holds no state of its own."""
