"""The ring as the sidecar sees it: a server, a replicator, and states from whoever has them in memory.

`start`, `stop` and `tick` belong to the main loop; `on_ready_slot` to the thread that works on a save; `offers` and `restore`
to a thread that answers the trainer.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, StoreError
from sternpost_checkpoint.lineage import Generation, Run, eligible
from sternpost_checkpoint.restore.pool import Limits
from sternpost_checkpoint.restore.wanted import Wanted
from sternpost_checkpoint.ring.client import PeerClient, open_peer
from sternpost_checkpoint.ring.connections import Connections
from sternpost_checkpoint.ring.description import Description
from sternpost_checkpoint.ring.errors import RingError
from sternpost_checkpoint.ring.fill import fill_from_peers
from sternpost_checkpoint.ring.holder import Holder, State
from sternpost_checkpoint.ring.keys import RingKeys
from sternpost_checkpoint.ring.members import Members, Peer, read_members
from sternpost_checkpoint.ring.metrics import RingMetrics
from sternpost_checkpoint.ring.replicator import Replicator
from sternpost_checkpoint.ring.server import Identity, PeerServer
from sternpost_checkpoint.ring.shelf import Shelf
from sternpost_checkpoint.ring.slots import LocalSlots
from sternpost_checkpoint.ring.source import Filled, RemoteState, fill_from_own
from sternpost_checkpoint.ring.survey import OWN, Held, obtainable, sources_for
from sternpost_checkpoint.shm.layout import SlotHeader
from sternpost_checkpoint.sidecar.config import Config

if TYPE_CHECKING:
    from sternpost_checkpoint.sidecar.metrics import Metrics

_log = structlog.get_logger()

TICK_SECONDS = 0.5
MAX_ASKED = 256
"""Peers that are asked what they have, those first that come after this worker."""
ASKING_THREADS = 16
SURVEY_SECONDS = 5.0
"""How long an answer of theirs counts."""


def open_ring(config: Config, catalog: Catalog, metrics: Metrics) -> Ring | None:
    """The ring of this worker, None where the job has none: no port, no keys, or switched off."""
    if config.ring_port is None or config.ring_keys is None or not config.policy.peer_replication:
        return None
    return Ring(config, catalog, RingMetrics(metrics.registry))


class Ring:
    """One for each sidecar."""

    def __init__(self, config: Config, catalog: Catalog, metrics: RingMetrics) -> None:
        self._config = config
        self._catalog = catalog
        self._metrics = metrics
        self._keys = RingKeys(config.ring_keys or config.control)
        self._slots = LocalSlots(config.shm)
        self._members: Members | None = None
        self._runs: tuple[float, list[Run]] | None = None
        self._shelf = Shelf(config.policy.peer_memory_bytes, self._is_eligible)
        self._holder = Holder(self._slots, self._shelf, self._favoured)
        self._server = PeerServer(
            self._keys, Identity(config.job_uid, self._attempt_number), self._holder, uuid.uuid4().hex
        )
        self._replicator = Replicator(self._slots, lambda: self._members, self._connect, metrics)
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ring")
        self._catching_up: Future[None] | None = None
        self._ticked_at = float("-inf")
        self._surveyed: tuple[float, list[Held]] | None = None
        self._survey_lock = threading.Lock()
        self.port: int | None = None
        """Where it listens, once it has started."""

    def start(self) -> None:
        """Listen. A port that is taken, or keys that are not there yet, cost the ring, never the checkpoints."""
        self._refresh()
        try:
            self._keys.current()
            self.port = self._server.start(self._config.listen_host, self._config.ring_port or 0)
        except (OSError, RingError) as error:
            _log.error("no peer can be served; checkpoints go on", reason=str(error))  # the reason says it

    def stop(self) -> None:
        """End everything; what is held for others is gone."""
        self._background.shutdown(wait=False, cancel_futures=True)
        self._server.stop()
        self._shelf.clear()

    def tick(self, now: float) -> None:
        """See whether the ring has changed or a copy is missing, and have it made in the background. Never blocks."""
        if now - self._ticked_at < TICK_SECONDS:
            return
        self._ticked_at = now
        self._refresh()
        self._slots.forget_missing()
        self._metrics.held_bytes.set(self._shelf.used_bytes)
        if self._catching_up is not None:
            if not self._catching_up.done():
                return
            self._catching_up.result()  # a defect is seen
        if self._replicator.is_due():
            self._catching_up = self._background.submit(self._replicator.catch_up)

    def on_ready_slot(self, rank: int, index: int, header: SlotHeader) -> None:
        """Hash a save's tensors, and copy those that no other rank has to the next worker. Blocks, within bounds.

        Never raises CheckpointError or OSError: what fails is tried again in the background.
        """
        self._refresh()
        self._replicator.push(rank, index, header)

    def offers(self, rank: int, world_size: int | None) -> list[Generation]:
        """What this rank can have from memory, its own slots and all peers', newest first. Never raises CheckpointError."""
        return obtainable(self._survey(), rank, world_size)

    @contextmanager
    def restore(self, generation: Generation, rank: int) -> Iterator[Restorer]:
        """Open whatever has a part of a state in memory; nothing of it may be there."""
        held = sources_for(self._survey(fresh=True), generation, rank)
        connections = Connections(self._open_index)
        try:
            own = self._own_states(generation)
            yield Restorer(own, self._describe(connections, held, generation), connections, self._metrics)
        finally:
            connections.close()

    def _describe(self, connections: Connections, held: Sequence[Held], generation: Generation) -> list[RemoteState]:
        found: list[RemoteState | None] = []

        def describe(item: Held) -> RemoteState | None:
            try:
                with connections.use(item.where) as client:
                    return RemoteState(item.where, client.describe(generation, item.holding.rank))
            except CheckpointError as error:
                _log.warning("a peer does not give what it offered", worker=item.where, reason=str(error))
                return None

        remote = [item for item in held if item.where != OWN]
        if remote:
            with ThreadPoolExecutor(max_workers=min(ASKING_THREADS, len(remote))) as threads:
                found = list(threads.map(describe, remote))
        return [state for state in found if state is not None]

    def _own_states(self, generation: Generation) -> list[State]:
        states: list[State] = []
        for rank, _, header in self._slots.headers():
            if Generation(*header.generation) == generation:
                state = self._slots.find(rank, generation)
                if state is not None:
                    states.append(state)
        return states + [part for part in self._shelf.parts() if part.description.generation == generation]

    def _survey(self, *, fresh: bool = False) -> list[Held]:
        """What everybody has."""
        with self._survey_lock:
            now = time.monotonic()
            if self._surveyed is None or fresh or now - self._surveyed[0] > SURVEY_SECONDS:
                self._refresh()
                self._surveyed = (time.monotonic(), self._ask_all())
            return [*(Held(OWN, holding) for holding in self._holder.holdings()), *self._surveyed[1]]

    def _ask_all(self) -> list[Held]:
        members = self._members
        peers = members.others()[:MAX_ASKED] if members is not None else []

        def ask(peer: Peer) -> list[Held]:
            try:
                with self._open_index(peer.index) as client:
                    return [Held(peer.index, holding) for holding in client.holdings()]
            except CheckpointError as error:
                _log.warning("a peer does not say what it holds", worker=peer.index, reason=str(error))
                return []

        if not peers:
            return []
        with ThreadPoolExecutor(max_workers=min(ASKING_THREADS, len(peers))) as threads:
            return [item for found in threads.map(ask, peers) for item in found]

    def _open_index(self, index: int) -> AbstractContextManager[PeerClient]:
        members = self._members
        peer = next((peer for peer in members.peers if peer.index == index), None) if members is not None else None
        if members is None or peer is None:
            raise RingError(f"worker {index} is not in the ring any more")
        return self._connect(peer, members)

    def _connect(self, peer: Peer, members: Members) -> AbstractContextManager[PeerClient]:
        return open_peer(peer, self._keys, job_uid=self._config.job_uid, attempt=members.number, worker=members.own)

    def _refresh(self) -> None:
        found = read_members(self._config.control, self._config.job_uid, self._config.pod)
        # As the fence does: never back to an earlier attempt.
        if found is not None and (self._members is None or found.number >= self._members.number):
            self._members = found

    def _attempt_number(self) -> int:
        return self._members.number if self._members is not None else 0

    def _favoured(self) -> range:
        return self._members.previous_ranks if self._members is not None else range(0)

    def _is_eligible(self, generation: Generation) -> bool:
        now = time.monotonic()
        if self._runs is None or now - self._runs[0] > SURVEY_SECONDS:
            try:
                self._runs = (now, self._catalog.runs())
            except StoreError as error:
                _log.warning("which generations are abandoned is not known now", reason=str(error))
                self._runs = (now, self._runs[1] if self._runs is not None else [])
        return eligible(generation, self._runs[1])


@dataclass
class Restorer:
    """A state's pieces in memory, for one restore."""

    own: list[State]
    remote: list[RemoteState]
    _connections: Connections
    _metrics: RingMetrics

    def description(self, rank: int) -> Description | None:
        """The rank's own, else None."""
        states: list[State] = [*self.own, *self.remote]
        return next((state.description for state in states if state.description.header.rank == rank), None)

    def any_description(self) -> Description | None:
        """Of the lowest rank that there is, for one that did not exist when the state was saved."""
        states: list[State] = [*self.own, *self.remote]
        found = [state.description for state in states]
        return min(found, key=lambda description: description.header.rank, default=None)

    def fill_from_own(self, wanted: Sequence[Wanted], limits: Limits) -> Filled:
        """What this worker's own memory has."""
        return fill_from_own(self.own, wanted, limits)

    def fill_from_peers(self, wanted: Sequence[Wanted], limits: Limits) -> Filled:
        """What peers have, or they and this worker together."""
        if not self.remote:
            return Filled(list(wanted))
        filled = fill_from_peers(self._connections, [*self.own, *self.remote], wanted, limits)
        self._metrics.fetched_bytes.inc(filled.bytes)
        return filled
