"""`NodeKeeper`: carries out what was decided about nodes, and says so on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from sternpost_operator.cluster.kubernetes.client import Json, KubernetesClient
from sternpost_operator.cluster.kubernetes.errors import NotFoundError, VersionConflictError
from sternpost_operator.cluster.kubernetes.paths import EVENTS, NODES
from sternpost_operator.cluster.kubernetes.views import HardwareConditions, node_entry
from sternpost_operator.node_keeper import marks
from sternpost_operator.node_keeper.decision import Change, KeptNode, decide, wanted
from sternpost_operator.node_keeper.drainer import Drainer
from sternpost_operator.node_keeper.events import NAMESPACE, node_event
from sternpost_operator.node_keeper.settings import KeeperSettings

_logger = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0
"""After a failure, or a conflict."""


class KeeperObserver(Protocol):
    """Is told what was done, for the figures."""

    def node_cordoned(self, reason: str) -> None:
        """A node was cordoned, for the condition of type `reason`."""
        ...

    def drain_ended(self, result: str) -> None:
        """A node's drain is `done`, `blocked`, or met an `error`."""
        ...


@dataclass(frozen=True)
class Kept:
    """How the nodes stand after a reconcile."""

    cordoned: frozenset[str] = frozenset()
    """Nodes that are cordoned by Sternpost."""
    withheld: frozenset[str] = frozenset()
    """Nodes with evidence that are not cordoned because too many are already."""
    drains: Mapping[str, str] = field(default_factory=dict)
    """Why a drain does not get on, by node: `Observed.drains`."""
    next_in: float | None = None
    """Seconds until there is something to do although nothing changes; None if there is not."""


class NodeKeeper:
    """Keeps bad nodes out of everybody's way, as far as `settings` allow. One at a time: by the leader."""

    def __init__(
        self,
        client: KubernetesClient,
        settings: KeeperSettings,
        hardware: HardwareConditions,
        observer: KeeperObserver,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._settings = settings
        self._hardware = hardware
        self._observer = observer
        self._drainer = Drainer(client, clock)
        self._withheld: frozenset[str] = frozenset()

    async def reconcile(self, nodes: Sequence[KeptNode], held: Collection[str], now: datetime) -> Kept:
        """Bring all nodes one step on. `held` are nodes that a job excludes on the node's own evidence.

        A node that cannot be changed now is left for the next time; nothing is raised for a server that does not answer.
        """
        decision = decide(nodes, held, self._settings, now)
        after = {node.name: node.marks for node in nodes}
        failed = False
        for change in decision.changes:
            done = await self._carry_out(change, held, now)
            failed = failed or not done
            after[change.node] = change.after if done else change.before
        await self._tell_of_withheld(nodes, frozenset(decision.withheld), now)
        ours = frozenset(name for name, each in after.items() if each.ours)
        failed = await self._drain(nodes, ours, now) or failed
        waits = [RETRY_SECONDS] if failed else []
        waits += [
            max(0.0, self._settings.uncordon_seconds - (now - each.gone_since).total_seconds())
            for name, each in after.items()
            if each.gone_since is not None and name not in held
        ]
        if self._drainer.next_in is not None:
            waits.append(self._drainer.next_in)
        return Kept(ours, frozenset(decision.withheld), self._drainer.blocked, min(waits, default=None))

    async def _carry_out(self, change: Change, held: Collection[str], now: datetime) -> bool:
        """Patch the node as it is now, if that is still what is wanted; whether its marks are as decided."""
        try:
            manifest = await self._client.get(NODES, None, change.node)
            node = kept_node(manifest, self._hardware)
            if node is None:
                return True
            after = wanted(node, may_cordon=change.cordons, held=change.node in held, settings=self._settings, now=now)
            if after == node.marks:
                return after == change.after
            await self._client.merge(NODES, None, change.node, marks.patch(manifest, node.marks, after))
        except NotFoundError:
            return True
        except VersionConflictError:
            return False
        except OSError as error:
            _logger.warning("node not changed, trying again", node=change.node, error=str(error))
            return False
        done = Change(change.node, node.marks, after)
        await self._tell(done, _uid(manifest), now)
        return after == change.after

    async def _tell(self, change: Change, uid: str, now: datetime) -> None:
        after = change.after
        if change.cordons:
            kinds = sorted(name.split("=")[0] for name in after.evidence)
            self._observer.node_cordoned(kinds[0] if kinds else "")
            message = (
                f"Sternpost cordoned this node and tainted it {marks.TAINT}:{marks.EFFECT}, because it says {after.reason}. "
                f"It is given back when that has been gone for {self._settings.uncordon_seconds:g} s and no job stays away "
                "because of it; kubectl uncordon overrules this."
            )
            await self._event(change.node, uid, "SternpostCordoned", message, now, is_warning=True)
        elif change.uncordons:
            message = "Sternpost took back its cordon: what it was made for is gone."
            await self._event(change.node, uid, "SternpostUncordoned", message, now)
        elif change.before.ours and not after.ours:
            message = (
                "The cordon that Sternpost made was changed by others; it is theirs now, and not made again for "
                f"{', '.join(sorted(after.overruled))}."
            )
            await self._event(change.node, uid, "SternpostOverruled", message, now)
        _logger.info("node changed", node=change.node, before=str(change.before), after=str(after))

    async def _tell_of_withheld(self, nodes: Sequence[KeptNode], withheld: frozenset[str], now: datetime) -> None:
        for node in nodes:
            if node.name in withheld - self._withheld:
                message = (
                    f"Sternpost does not cordon this node although it says {', '.join(sorted(node.evidence))}: at most "
                    f"{self._settings.max_share:.0%} of the nodes may be cordoned at once. Its jobs stay away all the same."
                )
                await self._event(node.name, node.uid, "SternpostCordonWithheld", message, now, is_warning=True)
        self._withheld = withheld

    async def _drain(self, nodes: Sequence[KeptNode], ours: frozenset[str], now: datetime) -> bool:
        """Drain what is cordoned; whether anything did not answer."""
        self._drainer.forget_others(ours if self._settings.drain else frozenset())
        failed = False
        for node in nodes:
            if not self._settings.drain or node.name not in ours:
                continue
            try:
                result = await self._drainer.step(node.name)
            except OSError as error:
                _logger.warning("drain interrupted, trying again", node=node.name, error=str(error))
                result, failed = "error", True
            if result:
                self._observer.drain_ended(result)
            if result == "blocked":
                message = f"The drain does not get on: {self._drainer.blocked[node.name]}."
                await self._event(node.name, node.uid, "SternpostDrainBlocked", message, now, is_warning=True)
            elif result == "done":
                await self._event(node.name, node.uid, "SternpostDrained", "No Pod is left to evict.", now)
        return failed

    async def _event(
        self, node: str, uid: str, reason: str, message: str, now: datetime, *, is_warning: bool = False
    ) -> None:
        event = node_event(node, uid, reason=reason, message=message, now=now, is_warning=is_warning)
        try:
            await self._client.create(EVENTS, NAMESPACE, event)
        except OSError as error:
            _logger.warning("event not written", node=node, reason=reason, error=str(error))


def kept_node(manifest: Json, hardware: HardwareConditions) -> KeptNode | None:
    """A node as the API server has it; None for what is none."""
    entry = node_entry(manifest, hardware)
    if entry is None:
        return None
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    return KeptNode(entry.view, marks.read(annotations), entry.uid)


def _uid(manifest: Json) -> str:
    return str((manifest.get("metadata") or {}).get("uid") or "")
