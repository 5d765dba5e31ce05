"""From a trainer's page to the part of the vector that describes one rank."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import httpx

from sternpost_eagle_eye.collect.fetch import fetch_page
from sternpost_eagle_eye.collect.page import Page, parse_page
from sternpost_eagle_eye.vector import LauncherVector, PageState, RankVector, TrainingPhase

_PHASES = get_args(TrainingPhase)
_SOURCES = ("shared-memory", "peer", "storage", "none")


def rank_vector(text: str, rank: int, attempt: str) -> tuple[RankVector, int]:
    """The rank as its page describes it, and how many lines were dropped.

    A page that names another rank or attempt is somebody else's: of ranks that outlived their attempt, or of a stranger who
    was given the port.
    """
    page = parse_page(text)
    if not page.samples:
        return RankVector(rank=rank, page=PageState.GARBAGE), page.dropped
    ranks = {sample.labels["rank"] for sample in page.samples if "rank" in sample.labels}
    attempts = {s.labels.get("attempt") for s in page.samples if s.name == "sternpost_attempt_info"}
    if (ranks and ranks != {str(rank)}) or (attempts and attempts != {attempt}):
        return RankVector(rank=rank, page=PageState.OTHER), page.dropped
    return RankVector(rank=rank, page=PageState.OK, **rank_fields(page)), page.dropped


def rank_fields(page: Page) -> dict[str, Any]:
    """Fields of a RankVector from the samples of one rank."""
    phase = page.chosen("sternpost_phase", "phase")
    if phase == "train" and page.value("sternpost_checkpoint_waiting") == 1:
        phase = "checkpoint"  # the script has not said so, but the Checkpointer has
    source = page.chosen("sternpost_restore_source", "source")
    waiting = page.value("sternpost_in_collective")
    stuck = page.value("sternpost_checkpoint_waiting")
    restored = page.finite("sternpost_restored_step")
    return {
        "step": page.count("sternpost_step"),
        "loss": page.value("sternpost_loss"),
        "grad_norm": page.value("sternpost_grad_norm"),
        "phase": phase if phase in _PHASES else None,
        "in_collective": None if waiting is None else waiting == 1,
        "last_step_at": page.finite("sternpost_last_step_timestamp_seconds"),
        "first_step": page.count("sternpost_first_step"),
        "first_step_at": page.finite("sternpost_first_step_timestamp_seconds"),
        "step_sum": page.total("sternpost_step_seconds_sum"),
        "step_count": page.count("sternpost_step_seconds_count"),
        "compute_sum": page.total("sternpost_compute_seconds_sum"),
        "compute_count": page.count("sternpost_compute_seconds_count"),
        "data_sum": page.total("sternpost_data_seconds_sum"),
        "data_count": page.count("sternpost_data_seconds_count"),
        "communication_sum": page.total("sternpost_communication_seconds_sum"),
        "communication_count": page.count("sternpost_communication_seconds_count"),
        "role": (page.label("sternpost_role_info", "role") or "")[:256] or None,
        "checkpoint_waiting": None if stuck is None else stuck == 1,
        "samples": page.total("sternpost_samples_total"),
        "blocked_sum": page.total("sternpost_checkpoint_blocked_seconds_sum"),
        "blocked_count": page.count("sternpost_checkpoint_blocked_seconds_count"),
        "restored_step": int(restored) if restored is not None and -1 <= restored <= 2**53 else None,
        "restore_seconds": page.total("sternpost_restore_seconds"),
        "restore_at": page.finite("sternpost_restore_timestamp_seconds"),
        "restore_source": source if source in _SOURCES else None,
    }


class TrainerCollector:
    """Scrapes the page of every local rank, all at once: one that hangs delays the vector by its time-out and no more."""

    def __init__(self, client: httpx.AsyncClient, ports: tuple[int, ...]) -> None:
        self._client = client
        self._ports = ports

    async def collect(self, launcher: LauncherVector | None, attempt: str) -> tuple[list[RankVector], int]:
        """One entry for each rank of the launcher, and the number of lines that made no sense."""
        if launcher is None or launcher.attempt != attempt:
            return [], 0
        running = launcher.state in ("running", "stopping")
        results = await asyncio.gather(
            *(
                self._one(process.rank, process.local_rank, attempt, running and process.exit_code is None)
                for process in launcher.ranks
            )
        )
        return [vector for vector, _ in results], sum(dropped for _, dropped in results)

    async def _one(self, rank: int, local_rank: int, attempt: str, alive: bool) -> tuple[RankVector, int]:
        if not alive or local_rank >= len(self._ports):
            return RankVector(rank=rank), 0
        state, text = await fetch_page(self._client, f"http://127.0.0.1:{self._ports[local_rank]}/metrics")
        if state is not PageState.OK:
            return RankVector(rank=rank, page=state), int(state not in (PageState.NONE, PageState.TIMEOUT))
        return rank_vector(text, rank, attempt)
