"""kill -9 at random moments, of real processes."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sternpost_checkpoint.lineage import newest
from sternpost_checkpoint.shm.paths import SLOTS
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.verify import verify_generation

SUPPORT = Path(__file__).resolve().parents[2] / "support"


def committed(surroundings: Any) -> Any:
    catalog = surroundings.catalog
    return newest((files.generation for files in catalog.generations() if files.complete), catalog.runs())


def newest_saved(surroundings: Any) -> int:
    headers = [Slot.open(surroundings.slot(index)).header() for index in range(SLOTS)]
    return max((header.step for header in headers if header is not None), default=0)


def test_killing_the_trainer_leaves_a_whole_state(surroundings: Any, helpers: Any) -> None:
    """A trainer that only writes, killed again and again: the slots always hold one whole state or more."""
    code = (
        "import sys, importlib.util\n"
        f"sys.path.insert(0, {str(SUPPORT)!r})\n"
        f"spec = importlib.util.spec_from_file_location('made', {str(Path(__file__).with_name('conftest.py'))!r})\n"
        "made = importlib.util.module_from_spec(spec); sys.modules['made'] = made; spec.loader.exec_module(made)\n"
        "from pathlib import Path\n"
        "folder, first = Path(sys.argv[1]), int(sys.argv[2])\n"
        "print('go', flush=True)\n"
        "for step in range(first, 10**9):\n"
        "    made.write_slot(folder / f'slot-{step % 2}', sequence=step, step=step, size=1 << 22)\n"
    )
    folder = surroundings.slot(0).parent
    newest_step = 0
    for _ in range(2):
        process = surroundings.python("-c", code, str(folder), str(newest_step + 1))
        assert process.stdout.readline() == b"go\n"
        helpers.until(lambda before=newest_step: newest_saved(surroundings) > before)
        time.sleep(helpers.random.uniform(0.05, 0.3))  # the random moment is the point
        process.send_signal(signal.SIGKILL)
        process.wait()
        for index in range(SLOTS):
            slot = Slot.open(surroundings.slot(index))
            header = slot.header()
            if header is not None:
                slot.meta(header)
                assert bytes(slot.payload(header)[: 1 << 22]) == helpers.payload_of(header.step, 1 << 22)
        found = newest_saved(surroundings)
        assert found > newest_step
        newest_step = found


@pytest.mark.parametrize("moments", [4])
def test_killing_the_sidecar_loses_no_commit(surroundings: Any, helpers: Any, moments: int) -> None:
    helpers.register_run(surroundings.store, 1)
    surroundings.slot(0).parent.mkdir(parents=True)
    known = None
    for step in range(1, moments + 1):
        process = surroundings.sidecar()
        helpers.write_slot(surroundings.slot(step % 2), sequence=step, step=step, size=1 << 22)
        assert b"ready" in process.stdout.readline()
        time.sleep(helpers.random.uniform(0.0, 0.12))  # the random moment is the point
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = committed(surroundings)
        assert known is None or found >= known
        if found is not None:
            assert verify_generation(surroundings.catalog, found) == []
        known = found
    process = surroundings.sidecar()
    helpers.until(lambda: (found := committed(surroundings)) is not None and found.step == moments)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert verify_generation(surroundings.catalog, committed(surroundings)) == []
    assert list(surroundings.storage.rglob(".tmp-rank*")) == []


def test_the_sidecar_ends_in_time_and_quietly(surroundings: Any) -> None:
    process = surroundings.sidecar()
    assert b"ready" in process.stdout.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - started < 5


def test_a_port_already_taken_costs_only_the_metrics(surroundings: Any) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 # as the metrics server binds
        taken.listen()
        port = taken.getsockname()[1]
        process = surroundings.sidecar(STERNPOST_PORT_CHECKPOINT=str(port))
        lines = process.stdout.readline() + process.stdout.readline()
    assert str(port).encode() in lines
    assert b"STERNPOST_PORT_CHECKPOINT" in lines
    assert b"ready" in lines


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"STERNPOST_CHECKPOINT": ""}, b"STERNPOST_CHECKPOINT is not set"),
        ({"STERNPOST_CHECKPOINT": '{"storage": "file:///x", "keep": 0}'}, b"wrong at keep"),
        ({"STERNPOST_CHECKPOINT": '{"storage": "ftp://x"}'}, b"none of file, s3, gs, az"),
        ({"STERNPOST_PORT_CHECKPOINT": "http"}, b"STERNPOST_PORT_CHECKPOINT"),
    ],
)
def test_bad_settings_end_in_one_line(surroundings: Any, changes: dict[str, str], words: bytes) -> None:
    process = surroundings.sidecar(**changes)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words in output
    assert b"Traceback" not in output
