"""The daemon's half of `medforgectl doctor`: whether this host is what MedForge needs, looked at without the daemon."""
