"""Three workers on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ring_world import Worker, tell, write_keys


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    keys = write_keys(tmp_path / "keys")
    made = [Worker(index, tmp_path / f"worker-{index}", keys, tmp_path / "store") for index in range(3)]
    tell(made)
    for worker in made:
        worker.start()
    yield made
    for worker in made:
        worker.stop()
