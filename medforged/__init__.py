"""The MedForge root daemon: GPUs, workspaces, isolation, containers and sessions of one host.

Importing this package imports nothing else, so that a client of the socket never loads
Docker, NVML, ZFS or iptables.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
