"""From the pages of DCGM, node_exporter and cAdvisor to the part of the vector that describes node and GPUs."""

from __future__ import annotations

from sternpost_eagle_eye.collect import cadvisor, dcgm, node_exporter
from sternpost_eagle_eye.collect.page import parse_names
from sternpost_eagle_eye.vector import ExporterVector

PREFIXES = (dcgm.PREFIX, node_exporter.PREFIX, cadvisor.PREFIX)
NAMES = dcgm.NAMES | node_exporter.NAMES | cadvisor.NAMES


def exporter_vector(text: str, at: float, pod: str | None = None) -> tuple[ExporterVector | None, int]:
    """What one or several pages, one after the other, say; None for nothing. Second: how many lines were dropped.

    `at`: when they were scraped, in seconds. `pod`: whose containers count; None for all.
    """
    page = parse_names(text, PREFIXES, NAMES)
    fields = dcgm.dcgm_fields(page) | node_exporter.node_fields(page) | cadvisor.container_fields(page, pod)
    return (ExporterVector(at=at, **fields) if fields else None), page.dropped
