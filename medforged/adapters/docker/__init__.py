"""Docker: sessions' containers and their network, through docker-py's low-level client on a bounded pool of threads."""

from medforged.adapters.docker.containers import DockerRuntime
from medforged.adapters.docker.creation import GpuInjection

__all__ = ["DockerRuntime", "GpuInjection"]
