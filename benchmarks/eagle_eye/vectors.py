"""A recording as vectors, which spares the time of rendering and parsing pages. Field by field what the text would give."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from benchmarks.eagle_eye.exporters import Labels
from benchmarks.eagle_eye.recording import LogLine, Recording, Restart, Sample, Scrape
from sternpost_eagle_eye.collect import cadvisor, dcgm, node_exporter
from sternpost_eagle_eye.collect.log_signatures import signs_of
from sternpost_eagle_eye.collect.page import Page, PageSample
from sternpost_eagle_eye.vector import ExporterVector, PageState, RankVector, Vector


def vectors(recording: Recording) -> Iterator[tuple[float, Vector | None]]:
    """Unix seconds and what was seen; None for a restart of the ranks."""
    nodes = recording.job.nodes
    for event in recording.events():
        if isinstance(event, Restart):
            yield event.t, None
        elif isinstance(event, LogLine):
            if logs := signs_of(event.text):
                yield event.t, _vector(event.worker, None).model_copy(update={"logs": logs})
        else:
            yield event.t, _scraped(event, nodes[event.worker])


def _vector(worker: int, node: str | None) -> Vector:
    return Vector(attempt="recording", pod_uid="", boot="", sequence=0, worker=worker, node=node)


def _scraped(scrape: Scrape, node: str) -> Vector:
    ranks = tuple(
        RankVector(rank=rank, page=PageState.OK, **fields) for rank, fields in scrape.ranks if fields is not None
    ) or (RankVector(rank=scrape.worker, page=PageState.NONE),)
    return Vector(
        attempt="recording",
        pod_uid="",
        boot="",
        sequence=0,
        worker=scrape.worker,
        node=node,
        ranks=ranks,
        exporters=_exporters(scrape.exporters, scrape.t) if scrape.exporters else None,
    )


def _exporters(samples: tuple[Sample, ...], at: float) -> ExporterVector | None:
    page = Page(tuple(PageSample(name, _labels(labels), value) for name, _, labels, value in samples), 0)
    fields = dcgm.dcgm_fields(page) | node_exporter.node_fields(page) | cadvisor.container_fields(page, None)
    return ExporterVector(at=at, **fields) if fields else None


@lru_cache(maxsize=100_000)
def _labels(labels: Labels) -> dict[str, str]:
    return dict(labels)
