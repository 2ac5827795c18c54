"""procfs: whose the processes of this host are."""

from __future__ import annotations

from medforged.adapters.procfs.processes import ProcfsProcessTable

__all__ = ["ProcfsProcessTable"]
