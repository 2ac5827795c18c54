"""Owns what the model holds against a site, beyond what tests/crash/invariants.py asks of any world.

`ALWAYS` holds at any moment, whatever is broken; `SETTLED` once nothing is, and everything has had its time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

from tests.crash import invariants
from tests.crash.invariants import Violation
from tests.crash.world import World
from tests.integration.services.rig import NETWORK
from tests.model.look import revisions, sharing, without
from tests.model.reference import Reference, Trouble
from tests.model.site import Site

__all__ = ["ALWAYS", "LIMIT", "SETTLED", "Scene", "always", "settled"]

# Active sessions that each user may have; the rpc's caller says so with every create.
LIMIT = 1
# From where a status may have come since the last look, at which others may have been skipped.
_EARLIER = {
    "starting": {"starting"},
    "running": {"starting", "running"},
    "stopping": {"starting", "running", "stopping"},
    "stopped": {"starting", "running", "stopping", "stopped"},
    "error": {"starting", "running", "stopping", "error"},
}


@dataclass(frozen=True)
class Scene:
    """What is looked at: the site as it was at the last look and as it is, and what the reference knows."""

    site: Site
    reference: Reference
    before: World
    now: World

    @property
    def slugs(self) -> dict[UUID, str]:
        return {record.id: record.slug for record in self.now.records}


def one_container_per_gpu(scene: Scene) -> Iterator[str]:
    """Whatever the records say: no two containers run on one GPU."""
    for uuid, names in sharing(scene.site).items():
        if len(names) > 1:
            yield f"{' and '.join(names)} run on {uuid}"


def nothing_shares_with_the_past(scene: Scene) -> Iterator[str]:
    """No session is on a GPU on which a process of an ended one still is."""
    holders = {
        device.uuid: record for record in scene.now.active for device in scene.now.devices if device.id == record.gpu_id
    }
    for uuid, processes in scene.reference.lingering.items():
        for process, owner in processes.items():
            if uuid in holders and holders[uuid].id != owner:
                yield f"{holders[uuid].slug} holds {uuid}, on which process {process} of {scene.slugs.get(owner)} still is"


def limits_hold(scene: Scene) -> Iterator[str]:
    """No user has more active sessions than allowed."""
    for user, count in Counter(scene.reference.lives[record.id].user for record in scene.now.active).items():
        if count > LIMIT:
            yield f"user {user} has {count} active sessions"


def slugs_are_unique(scene: Scene) -> Iterator[str]:
    """No slug was ever given to two sessions."""
    for slug, count in Counter(record.slug for record in scene.now.records).items():
        if count > 1:
            yield f"{slug} names {count} sessions"


def nothing_goes_back(scene: Scene) -> Iterator[str]:
    """A status is only ever followed by one that may follow it."""
    for record in scene.now.records:
        before = scene.before.record(record.id)
        if before is not None and before.status not in _EARLIER[record.status]:
            yield f"{record.slug} was {before.status} and is now {record.status}"


def orphans_are_left_alone(scene: Scene) -> Iterator[str]:
    """What no record explains stays until somebody says otherwise."""
    for name in sorted(scene.reference.orphans - scene.now.strangers):
        yield f"{name} is gone, and nobody has asked for it"


def nothing_starts_unprotected(scene: Scene) -> Iterator[str]:
    """While isolation cannot be established, no session becomes running that was not under it already."""
    if Trouble.FILTER not in scene.reference.troubles:
        return
    for record in scene.now.records:
        before = scene.before.record(record.id)
        became = record.status == "running" and (before is None or before.status != "running")
        if became and record.id not in scene.reference.exempt:
            yield f"{record.slug} has become running although isolation fails"


def gpus_out_of_use_are_not_given(scene: Scene) -> Iterator[str]:
    """A GPU that is disabled, or known to be broken or in quarantine, gets no session."""
    known = {device.id: device for device in scene.before.devices}
    for record in scene.now.records:
        device = known.get(record.gpu_id)
        if device is None or scene.before.record(record.id) is not None:
            continue
        since = next(found for found in scene.now.devices if found.id == device.id)
        if not device.usable and not since.usable:
            yield f"{record.slug} was given GPU {device.id}, which was not usable: {device}"


def watchers_are_told_in_order(scene: Scene) -> Iterator[str]:
    """For whoever follows the watch stream, revisions only ever grow."""
    told = scene.site.daemon.watcher.revisions
    for earlier, later in itertools.pairwise(told):
        if later <= earlier:
            yield f"revision {later} was told after {earlier}"


def ends_are_told_once(scene: Scene) -> Iterator[str]:
    """The journal never tells the same end, or the same start, twice; nor an end that was none."""
    for event in ("session.stop", "session.start"):
        for session, lines in scene.site.told(event).items():
            if len(lines) > 1:
                yield f"{event} is in the journal {len(lines)} times for {scene.slugs.get(session)}"
    ended = {record.id: record for record in scene.now.records if not record.active}
    for session, lines in scene.site.told("session.stop").items():
        record = ended.get(session)
        if record is None or lines[0]["reason"] != record.ending:
            yield f"the journal tells that {scene.slugs.get(session)} ended ({lines[0]['reason']}); its record: {record}"


def fates_are_explained(scene: Scene) -> Iterator[str]:
    """What has become of each session is what was asked for, or what happened to it allows it."""
    for record in scene.now.records:
        for complaint in scene.reference.lives[record.id].complaints(record):
            yield f"{record.slug} {complaint}"


def snapshots_fail_for_a_reason(scene: Scene) -> Iterator[str]:
    """A session that ran has its final snapshot, unless storage failed while it ended."""
    for record in scene.now.records:
        life = scene.reference.lives[record.id]
        dataset = scene.now.dataset(record.workspace)
        kept = dataset is not None and bool(dataset.snapshots)
        if not record.active and life.told and not kept and not life.met_any(Trouble.DISK, Trouble.STUCK):
            yield f"{record.slug} has no snapshot, and nothing stood in its way: {record.error_message}"


def failed_creates_leave_nothing(scene: Scene) -> Iterator[str]:
    """A session that never ran, and whose undoing nothing hindered, has no workspace."""
    for record in scene.now.records:
        life = scene.reference.lives[record.id]
        if (
            record.ending == "create_failed"
            and scene.now.dataset(record.workspace)
            and not life.met_any(Trouble.DISK, Trouble.STUCK, Trouble.STATE, Trouble.LOST, Trouble.KILL)
        ):
            yield f"{record.slug} never ran, and its workspace is still there"


def gpus_are_seen(scene: Scene) -> Iterator[str]:
    """A GPU is enabled as the operator said, and healthy as it is; the daemon has noticed both."""
    for device in scene.now.devices:
        if device.enabled is (device.uuid in scene.reference.disabled):
            yield f"GPU {device.id} is {'enabled' if device.enabled else 'disabled'}, and was to be the other"
        if device.healthy is (device.uuid in scene.reference.broken):
            yield f"GPU {device.id} counts as {'healthy' if device.healthy else 'unhealthy'}, and is not ({device.reason})"


def watchers_know_everything(scene: Scene) -> Iterator[str]:
    """Whoever follows the watch stream has the newest record of each session that changed meanwhile."""
    known = {session: newest.revision for session, newest in scene.site.daemon.watcher.newest.items()}
    for session, revision in revisions(scene.site).items():
        record = scene.now.record(session)
        if record is None or scene.reference.lives[session].met_any(Trouble.LOST):
            continue
        if known.get(session, revision if not record.active else 0) != revision:
            yield f"watchers know revision {known.get(session)} of {record.slug}, and {revision} is the newest"


def ends_and_starts_are_told(scene: Scene) -> Iterator[str]:
    """The journal tells every end and every start, but for those at which the daemon was killed."""
    stops, starts = scene.site.told("session.stop"), scene.site.told("session.start")
    for record in scene.now.records:
        life = scene.reference.lives[record.id]
        if life.met_any(Trouble.KILL, Trouble.LOST):
            continue
        if not record.active and record.id not in stops:
            yield f"the journal does not tell the end of {record.slug}"
        if life.told and record.id not in starts:
            yield f"the journal does not tell the start of {record.slug}"


def the_network_is_there(scene: Scene) -> Iterator[str]:
    """Sessions can be attached: whoever creates one does not have to know that the network was lost before."""
    if scene.site.host.networks.get(NETWORK.name) is None:
        yield "the sessions' network is not there"
    if (problem := scene.site.services.guard.problem) is not None:
        yield f"isolation is not established again: {problem}"


def health_is_honest(scene: Scene) -> Iterator[str]:
    """When nothing is the matter, no part says that something is; and the recovery loop always runs."""
    if not scene.site.services.recovery.alive:
        yield "the recovery loop does not run"
    if scene.reference.stuck:
        return
    services = scene.site.services
    problems = {
        "recovery": services.recovery.problem,
        "events": services.events.problem,
        "isolation": services.guard.problem,
    }
    for name, problem in problems.items():
        if problem is not None:
            yield f"{name} says: {problem}"


Check = Callable[[Scene], Iterator[str]]
ALWAYS: tuple[Check, ...] = (
    one_container_per_gpu,
    nothing_shares_with_the_past,
    limits_hold,
    slugs_are_unique,
    nothing_goes_back,
    orphans_are_left_alone,
    nothing_starts_unprotected,
    gpus_out_of_use_are_not_given,
    watchers_are_told_in_order,
    ends_are_told_once,
)
SETTLED: tuple[Check, ...] = (
    fates_are_explained,
    snapshots_fail_for_a_reason,
    failed_creates_leave_nothing,
    watchers_know_everything,
    ends_and_starts_are_told,
    the_network_is_there,
    health_is_honest,
)


def always(scene: Scene) -> Iterator[Violation]:
    yield from invariants.at_any_moment(scene.now)
    yield from invariants.between(scene.before, scene.now)
    for check in ALWAYS:
        for sentence in check(scene):
            yield Violation(check.__name__, sentence)


def settled(scene: Scene) -> Iterator[Violation]:
    """Those who are stuck, and GPUs that are broken, are left out: they are settled when they no longer are."""
    part = without(scene.now, scene.reference.stuck, scene.reference.broken)
    yield from invariants.settled(part)
    reduced = Scene(scene.site, scene.reference, scene.before, part)
    for check in SETTLED:
        for sentence in check(reduced):
            yield Violation(check.__name__, sentence)
    # A call that hangs may keep the daemon from looking at GPUs; otherwise it has seen those that are broken, too.
    for sentence in gpus_are_seen(reduced if scene.reference.stuck else scene):
        yield Violation(gpus_are_seen.__name__, sentence)
