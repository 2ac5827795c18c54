"""Owns what a session's container is made of, derived from its record, its pack and the settings alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from medforged.domain.containers import ContainerLimits, ContainerSpec
from medforged.domain.errors import PackNotFound
from medforged.domain.packs import DEFAULT_PACK_ID, Pack
from medforged.domain.sessions import Session
from medforged.domain.workspaces import Workspace

__all__ = ["SessionPlan"]


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What all sessions of this host have in common. Seconds; `quota_bytes` None means unlimited."""

    packs: tuple[Pack, ...]
    network: str
    limits: ContainerLimits
    quota_bytes: int | None
    gpus_simulated: bool
    start_timeout_seconds: float
    stop_grace_seconds: float

    def pack(self, pack_id: UUID | None) -> Pack:
        """The named pack, or the default one. Raises PackNotFound."""
        wanted = pack_id or DEFAULT_PACK_ID
        for pack in self.packs:
            if pack.id == wanted:
                return pack
        if pack_id is None:
            raise PackNotFound("cannot start a session: no default pack is configured; set packs.default_image")
        raise PackNotFound(f"no pack has the id {pack_id}")

    def container(self, session: Session, image: str, workspace: Workspace) -> ContainerSpec:
        return ContainerSpec(
            name=session.container_name,
            session_id=session.id,
            slug=session.slug,
            image=image,
            network=self.network,
            workspace=workspace.path,
            gpu_uuid=session.gpu_uuid,
            gpu_simulated=self.gpus_simulated,
            environment=tuple(_environment(session)),
            limits=self.limits,
        )


def _environment(session: Session) -> Collection[tuple[str, str]]:
    # contract.md section 3. The UUID names the one GPU to the runtime; inside it is device 0.
    return (
        ("MEDFORGE_SESSION_ID", str(session.id)),
        ("MEDFORGE_USER_ID", str(session.user_id)),
        ("MEDFORGE_TIER", session.tier.value.upper()),
        ("MEDFORGE_GPU_ID", str(session.gpu_id)),
        ("NVIDIA_VISIBLE_DEVICES", session.gpu_uuid),
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
    )
