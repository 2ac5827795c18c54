"""Owns whether the container engine, its images and the sessions' network are what sessions need."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from medforged.adapters.docker import DockerRuntime
from medforged.adapters.docker.survey import Survey
from medforged.config import Settings, network_of, packs_of
from medforged.contract.doctor import Examination, Kind, failed, fine, skipped, warning
from medforged.domain.containers import NetworkSpec
from medforged.domain.errors import ContainerError

__all__ = ["examine_engine"]

_CADDY_REMEDY = "start it: `systemctl start medforge-caddy`"


async def examine_engine(settings: Settings, network: NetworkSpec) -> tuple[Survey | None, list[Examination]]:
    """The engine as it is, None where it does not answer, and what is to be said about it."""
    if settings.adapters.containers == "simulated":
        return None, [skipped(Kind.HOST, "Docker", "containers are simulated here")]
    engine = DockerRuntime(instance=settings.daemon.instance, socket=Path(settings.containers.docker_socket))
    try:
        seen = await engine.survey()
        found = [fine(Kind.HOST, "Docker", f"{seen.version}, cgroup {seen.cgroup_version} by {seen.cgroup_driver}")]
        found += await _images(engine, settings)
        found += await _network(engine, settings, network)
    except ContainerError as error:
        remedy = "start it: `systemctl start docker`; see `journalctl -u docker`"
        return None, [failed(Kind.HOST, "Docker", str(error), remedy)]
    finally:
        await engine.close()
    return seen, found


async def _images(engine: DockerRuntime, settings: Settings) -> list[Examination]:
    found = []
    for pack in packs_of(settings):
        subject = f"image of pack {pack.name}"
        try:
            await engine.resolve_image(pack.image)
        except ContainerError as error:
            found.append(
                failed(Kind.HOST, subject, str(error), "get it as the message says, or build it: `ops/images pack`")
            )
        else:
            found.append(fine(Kind.HOST, subject, "is on this host"))
    return found


async def _network(engine: DockerRuntime, settings: Settings, spec: NetworkSpec) -> list[Examination]:
    subject = "sessions' network"
    problems = await engine.network_problems(spec)
    if problems is None:
        return [failed(Kind.HOST, subject, f"there is no network {spec.name}", "start medforged, which makes it")]
    if problems:
        return [
            failed(
                Kind.HOST,
                subject,
                f"{spec.name} exists, but its {'; its '.join(problems)}",
                f"stop what is attached and remove it (`docker network rm {spec.name}`), then restart medforged",
            )
        ]
    _, proxy = network_of(settings.network)
    endpoints = (await engine.network(spec.name)).endpoints
    return [
        fine(Kind.HOST, subject, f"{spec.name} is {spec.subnet} on {spec.bridge}"),
        _caddy({endpoint.address: endpoint.container_name for endpoint in endpoints}, proxy),
    ]


def _caddy(names: dict[IPv4Address, str], proxy: IPv4Address) -> Examination:
    holder = names.get(proxy)
    if holder is None:
        return failed(Kind.SERVICES, "Caddy's address", f"nobody has {proxy}: Caddy does not run", _CADDY_REMEDY)
    if "caddy" not in holder:
        return warning(
            Kind.SERVICES,
            "Caddy's address",
            f"the container {holder} has {proxy}, which may open connections to every session",
            f"if that is not your proxy, remove it at once and start Caddy: {_CADDY_REMEDY}",
        )
    return fine(Kind.SERVICES, "Caddy's address", f"{holder} has {proxy}")
