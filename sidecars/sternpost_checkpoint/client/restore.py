"""Restoring: agree with all ranks on a generation, bring it into reach, and only then touch the training's objects."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

import torch

from sternpost_checkpoint.client.agree import Offer, choose
from sternpost_checkpoint.client.environment import Environment
from sternpost_checkpoint.client.group import Group
from sternpost_checkpoint.client.memory import Slots
from sternpost_checkpoint.client.metrics import SOURCES
from sternpost_checkpoint.client.sidecar_link import SidecarError, SidecarLink
from sternpost_checkpoint.client.tree import decode
from sternpost_checkpoint.client.wanted import WantedState
from sternpost_checkpoint.errors import CheckpointError, RestoreError
from sternpost_checkpoint.format.table import Meta
from sternpost_checkpoint.lineage import Generation

_log = logging.getLogger("sternpost_checkpoint")


@dataclass(frozen=True)
class Loaded:
    """A state within reach: its trees decoded, nothing applied yet."""

    generation: Generation
    source: str
    """The farthest that something was fetched from."""
    meta: Meta
    states: dict[str, Any]


def agree_and_load(
    group: Group, link: SidecarLink, slots: Slots, wanted: WantedState, *, replicated: bool
) -> Loaded | None:
    """Return the newest state that all ranks share; None when there is none at all. `wanted`: what this rank holds.

    Raises RestoreError when there are states but none that can be read: starting afresh would abandon them.
    """
    offers, slot_of = _offers(group, link, slots, replicated=replicated)
    refused: dict[Generation, list[str]] = {}
    while (generation := choose(offers, refused)) is not None:
        loaded, reason = _load(generation, link, slots, slot_of.get(generation), wanted)
        reasons = [str(message) for message in group.exchange(reason) if message]
        if not reasons and loaded is not None:
            return loaded
        refused[generation] = reasons
        _log.error("step %d of run %d cannot be restored: %s", generation.step, generation.run, "; ".join(reasons))
    if refused:
        first = max(refused)
        raise RestoreError(
            f"none of {len(refused)} checkpoints can be restored; the newest, step {first.step} of run {first.run}:"
            f" {'; '.join(refused[first])}. Repair the storage, or give another spec.checkpoint.storage to begin afresh"
        )
    return None


def newest_common(group: Group, link: SidecarLink, slots: Slots, *, replicated: bool) -> Generation | None:
    """The generation that `agree_and_load` tries first."""
    offers, _ = _offers(group, link, slots, replicated=replicated)
    return choose(offers, ())


def register(group: Group, link: SidecarLink, environment: Environment, restored: Generation | None) -> int:
    """Register the run, through rank 0's sidecar; returns its number. From now on what lies behind is abandoned."""
    message: dict[str, Any] = {"run": None, "error": None}
    if group.rank == 0:
        try:
            message["run"] = link.call(
                {
                    "type": "register",
                    "attemptNumber": environment.attempt_number,
                    "attemptId": environment.attempt_id,
                    "restoredStep": restored.step if restored else 0,
                    "restoredRun": restored.run if restored else None,
                    "token": uuid.uuid4().hex,
                }
            )["run"]
        except CheckpointError as error:
            message["error"] = str(error)
    messages = group.exchange(message)
    _raise_any(messages, "the training cannot be registered")
    return int(messages[0]["run"])


def agree_on_errors(group: Group, error: CheckpointError | None, what: str) -> None:
    """Raise on every rank what any rank has run into, so that none waits for one that is gone."""
    messages = group.exchange({"error": str(error) if error else None})
    if error is not None:
        raise error
    _raise_any(messages, what)


def sorted_pairs(generations: frozenset[Generation]) -> list[list[int]]:
    """As JSON."""
    return [[generation.step, generation.run] for generation in sorted(generations)]


def _generations(pairs: list[list[int]]) -> frozenset[Generation]:
    return frozenset(Generation(step, run) for step, run in pairs)


def _raise_any(messages: list[dict[str, Any]], what: str) -> None:
    for rank, message in enumerate(messages):
        if message.get("error"):
            raise RestoreError(f"{what}: rank {rank}: {message['error']}")


def _offers(
    group: Group, link: SidecarLink, slots: Slots, *, replicated: bool
) -> tuple[list[Offer], dict[Generation, int]]:
    """What every rank can get, and where this one has it in its slots."""
    offer, slot_of, failure = _offer(group, link, slots, replicated=replicated)
    messages = group.exchange(
        {
            "memory": sorted_pairs(offer.memory),
            "storage": sorted_pairs(offer.storage),
            "peer": sorted_pairs(offer.peer),
            "error": failure,
        }
    )
    _raise_any(messages, "cannot list the checkpoints")
    offers = [Offer(*(_generations(message[name]) for name in ("memory", "storage", "peer"))) for message in messages]
    return offers, slot_of


def _offer(
    group: Group, link: SidecarLink, slots: Slots, *, replicated: bool
) -> tuple[Offer, dict[Generation, int], str | None]:
    nothing: frozenset[Generation] = frozenset()
    try:
        answer = link.call({"type": "list", "worldSize": group.world_size})
    except CheckpointError as error:
        return Offer(nothing, nothing), {}, str(error)
    headers = slots.headers()
    slot_of = {}
    for step, run, index in answer["memory"]:
        header = headers.get(index)
        # Without replication a state of another number of ranks is another state.
        if header and header.generation == (step, run) and (replicated or header.world_size == group.world_size):
            slot_of[Generation(step, run)] = index
    return Offer(frozenset(slot_of), _generations(answer["storage"]), _generations(answer["peer"])), slot_of, None


def _load(
    generation: Generation, link: SidecarLink, slots: Slots, slot: int | None, wanted: WantedState
) -> tuple[Loaded | None, str | None]:
    try:
        if slot is not None:
            try:
                return _read(generation, slots, slot, "shared-memory", wanted), None
            except CheckpointError as error:
                _log.warning("the state in shared memory is not used as it is: %s", error)
        question: dict[str, Any] = {"type": "fetch", "step": generation.step, "run": generation.run}
        if blocks := wanted.entries():
            question["wanted"] = blocks
        answer = link.call(question)
        sources = [name for name in SOURCES if answer.get("sources", {}).get(name)]
        return _read(generation, slots, int(answer["slot"]), (sources or ["storage"])[-1], wanted), None
    except SidecarError as error:
        return None, f"{error.kind}: {error}"
    except CheckpointError as error:
        return None, str(error)


def _read(generation: Generation, slots: Slots, index: int, source: str, wanted: WantedState) -> Loaded:
    header = slots.headers().get(index)
    if header is None or Generation(*header.generation) != generation:
        raise RestoreError(f"slot {index} does not hold step {generation.step} of run {generation.run} any more")
    meta, views = slots.read(index, header)
    wanted.check(meta)
    tensors: list[torch.Tensor | None] = [
        wanted.assembled(spec, view) for spec, view in zip(meta.tensors, views, strict=True)
    ]
    states = {role: decode(tree, tensors) for role, tree in meta.trees.items()}
    slots.check_unchanged(index, header)
    return Loaded(generation, source, meta, states)
