"""Trainer and sidecar together, in one process."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY

from sternpost_checkpoint import Checkpointer, CheckpointError
from sternpost_checkpoint.client import sidecar_link
from sternpost_checkpoint.errors import RestoreError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.shm.layout import HEADER_BYTES
from sternpost_checkpoint.shm.slot import SlotWriter
from sternpost_checkpoint.shm.status import Progress, read_status
from sternpost_checkpoint.verify import verify_generation


class Sampler:
    """An object with a state of its own."""

    def __init__(self) -> None:
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "seen": (1, 2)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["seen"] == (1, 2)
        self.position = state["position"]


class Training:
    """A tiny training whose every step draws from every random state."""

    def __init__(self, **options: Any) -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Dropout(), torch.nn.Linear(32, 16))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 100)
        self.sampler = Sampler()
        self.generator = torch.Generator().manual_seed(3)
        self.numpy_generator = np.random.default_rng(4)
        self.extra: dict[str, Any] = {
            "sampler": self.sampler,
            "scheduler": self.scheduler,
            "generator": self.generator,
            "numpy": self.numpy_generator,
            "tokens": 0,
            "average": torch.zeros(3, dtype=torch.bfloat16),
        }
        self.checkpointer = Checkpointer(model=self.model, optimizer=self.optimizer, extra=self.extra, **options)

    def step(self) -> float:
        batch = torch.randn(4, 16) + random.random() + np.random.random()  # noqa: S311
        batch = batch + torch.rand(1, generator=self.generator) + self.numpy_generator.random()
        self.optimizer.zero_grad()
        loss = self.model(batch).pow(2).mean()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.sampler.position += 1
        self.extra["tokens"] += 7
        self.extra["average"] += 1
        return loss.item()


def reference(steps: int) -> list[float]:
    """The losses of an undisturbed training."""
    training = Training()
    training.checkpointer._run = 1
    return [training.step() for _ in range(steps)]


def test_a_resumed_training_is_bit_identical_from_memory_and_from_storage(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None]
) -> None:
    trainer(1)
    running()
    expected = reference(9)
    first = Training()
    assert first.checkpointer.restore() == 0
    losses = [first.step() for _ in range(3)]
    assert first.checkpointer.save(3, wait=True)
    first.step()

    trainer(2)
    second = Training()
    assert second.checkpointer.restore() == 3
    assert REGISTRY.get_sample_value("sternpost_restore_source", {"rank": "0", "source": "shared-memory"}) == 1
    assert REGISTRY.get_sample_value("sternpost_restored_step", {"rank": "0"}) == 3
    losses += [second.step() for _ in range(3)]
    with second.checkpointer as checkpointer:
        assert checkpointer.save(6)

    for index in range(2):
        surroundings.slot(index).unlink()
    trainer(3)
    third = Training()
    assert third.checkpointer.restore() == 6
    assert REGISTRY.get_sample_value("sternpost_restore_source", {"rank": "0", "source": "storage"}) == 1
    losses += [third.step() for _ in range(3)]
    assert losses == expected
    assert third.sampler.position == 9
    assert third.extra["tokens"] == 63
    assert third.extra["average"].tolist() == [9, 9, 9]
    assert third.optimizer.state_dict()["state"].keys() == {0, 1, 2, 3}


def test_restored_optimizer_state_is_no_view_of_a_slot(
    running: Callable[..., Any], trainer: Callable[..., None]
) -> None:
    trainer(1)
    running()
    training = Training()
    training.checkpointer.restore()
    training.step()
    training.checkpointer.save(1, wait=True)
    trainer(2)
    again = Training()
    again.checkpointer.restore()
    kept = again.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    for slot in again.checkpointer._slots._slots:
        slot.memory[HEADER_BYTES : slot.capacity] = bytes(slot.capacity - HEADER_BYTES)
    assert torch.equal(again.optimizer.state_dict()["state"][0]["exp_avg"], kept)
    assert next(again.model.parameters()).detach().abs().sum().item() > 0


def test_a_damaged_generation_is_refused_and_the_older_one_taken(
    surroundings: Any,
    running: Callable[..., Any],
    trainer: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    helpers: Any,
) -> None:
    trainer(1)
    running()
    training = Training()
    training.checkpointer.restore()
    for step in (1, 2):
        training.step()
        training.checkpointer.save(step, wait=True)
    shard = helpers.shard_of(surroundings.storage, 2)
    shard.write_bytes(shard.read_bytes()[:-1])
    for index in range(2):
        surroundings.slot(index).unlink()
    trainer(2)
    assert Training().checkpointer.restore() == 1
    assert ".shard has" in caplog.text

    shard = helpers.shard_of(surroundings.storage, 1)
    shard.write_bytes(b"")
    for index in range(2):
        surroundings.slot(index).unlink()
    trainer(3)
    with pytest.raises(
        RestoreError, match=r"none of 1 checkpoints can be restored.*rank-00000-.*\.shard.*begin afresh"
    ):
        Training().checkpointer.restore()


def test_flipped_memory_is_noticed_and_the_storage_used(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None]
) -> None:
    trainer(1)
    running()
    training = Training()
    training.checkpointer.restore()
    training.step()
    training.checkpointer.save(1, wait=True)
    for index in range(2):
        slot = SlotWriter.open(surroundings.slot(index))
        if slot.header() is not None:
            slot.memory[HEADER_BYTES + 100] ^= 1
    trainer(2)
    again = Training()
    assert again.checkpointer.restore() == 1
    assert REGISTRY.get_sample_value("sternpost_restore_source", {"rank": "0", "source": "storage"}) == 1
    for name, value in training.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_another_model_is_refused_in_one_sentence(running: Callable[..., Any], trainer: Callable[..., None]) -> None:
    trainer(1)
    running()
    training = Training()
    training.checkpointer.restore()
    training.checkpointer.save(1, wait=True)
    trainer(2)
    other = Checkpointer(model=torch.nn.Linear(3, 3))
    with pytest.raises(CheckpointError, match="the checkpoint does not fit model"):
        other.restore()


def test_an_old_attempt_can_neither_start_nor_commit(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None], helpers: Any
) -> None:
    surroundings.set_attempt(1)
    trainer(1)
    running()
    old = Training()
    old.checkpointer.restore()
    old.checkpointer.save(1, wait=True)
    late = Training()
    trainer(2)
    surroundings.set_attempt(2)
    new = Training()
    assert new.checkpointer.restore() == 1
    old.checkpointer.save(5)
    with pytest.raises(CheckpointError, match="step 5 is in shared memory but not committed"):
        old.checkpointer.wait()
    with pytest.raises(RestoreError, match="attempt 1-id is superseded by 2-id"):
        late.checkpointer.restore()
    assert [files.generation for files in surroundings.catalog.generations()] == [Generation(1, 1)]


def test_a_full_disk_is_reported_and_repaired(
    surroundings: Any,
    running: Callable[..., Any],
    trainer: Callable[..., None],
    helpers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sternpost_checkpoint.client.checkpointer.FAILED_SECONDS", 0.0)
    trainer(1)

    class Full(helpers.FaultyStore):  # type: ignore[misc, name-defined]
        full = False

        def put(self, name: str, pieces: Any) -> int:
            if self.full and name.endswith(".shard"):
                raise helpers.StoreError("cannot write: no space left: make room")
            return int(super().put(name, pieces))

    store = Full(surroundings.store, -1, None)
    service = running(store)
    training = Training()
    training.checkpointer.restore()
    training.checkpointer.save(1, wait=True)
    store.full = True
    with pytest.raises(
        CheckpointError, match="step 2 is in shared memory but not committed: cannot write: no space left"
    ):
        training.checkpointer.save(2, wait=True)
    assert [files.generation.step for files in surroundings.catalog.generations()] == [1]
    assert service.service._metrics.failures._value.get() >= 1
    # A trainer that is started again has that state from memory, and must not end before the storage has it.
    training = Training()
    assert training.checkpointer.restore() == 2
    with pytest.raises(CheckpointError, match="step 2 is in shared memory but not committed"):
        training.checkpointer.close()
    store.full = False
    training.checkpointer.save(3, wait=True)
    assert verify_generation(surroundings.catalog, Generation(3, 2)) == []


def test_a_busy_sidecar_skips_or_waits_and_a_dead_one_never_blocks(
    surroundings: Any, trainer: Callable[..., None], running: Callable[..., Any], helpers: Any
) -> None:
    trainer(1)
    service = running()
    training = Training()
    training.checkpointer.restore()
    service.stop()
    heartbeat = surroundings.shm / "checkpoint" / "sidecar.json"
    assert heartbeat.exists()
    assert training.checkpointer.save(1)
    assert training.checkpointer.save(2)
    assert not training.checkpointer.save(3)
    assert training.checkpointer.skipped == 1
    import os

    os.utime(heartbeat, (1, 1))
    assert training.checkpointer.save(4)
    headers = training.checkpointer._slots.headers()
    assert sorted(header.step for header in headers.values()) == [2, 4]
    service = running()
    training.checkpointer.close()
    helpers.until(lambda: surroundings.catalog.generations()[-1].complete)
    assert [files.generation.step for files in surroundings.catalog.generations()] == [2, 4]


def test_rules_of_save(running: Callable[..., Any], trainer: Callable[..., None]) -> None:
    trainer(1)
    running()
    training = Training()
    with pytest.raises(CheckpointError, match=r"call restore\(\) before the first save"):
        training.checkpointer.save(1)
    training.checkpointer.restore()
    with pytest.raises(CheckpointError, match="called already"):
        training.checkpointer.restore()
    assert training.checkpointer.save(5)
    assert training.checkpointer.save(5, wait=True)
    with pytest.raises(ValueError, match="steps must grow"):
        training.checkpointer.save(4)
    for step in (-1, 10**12, True, 1.5):
        with pytest.raises(ValueError, match="step must be an integer"):
            training.checkpointer.save(step)  # type: ignore[arg-type]
    count = REGISTRY.get_sample_value("sternpost_checkpoint_blocked_seconds_count", {"rank": "0"})
    assert count is not None
    assert count >= 1


def test_the_floor_and_the_blocked_time_are_in_the_ledger(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None]
) -> None:
    trainer(1)
    running()
    training = Training()
    training.checkpointer.restore()
    training.checkpointer.save(1, wait=True)
    entry = surroundings.catalog.ledger()[0]
    assert 0 < entry.memcpy_floor_seconds < 1
    assert 0 < entry.blocked_seconds < 10
    assert entry.raw_bytes > entry.stored_bytes / 2 > 0


def test_outside_of_sternpost_the_error_tells_how_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("STERNPOST_SHM_DIR", raising=False)
    with pytest.raises(CheckpointError, match=r"sternpost run job\.yaml"):
        Checkpointer(model=torch.nn.Linear(1, 1))
    monkeypatch.setenv("STERNPOST_SHM_DIR", str(tmp_path))
    monkeypatch.delenv("STERNPOST_ATTEMPT", raising=False)
    with pytest.raises(CheckpointError, match="STERNPOST_ATTEMPT"):
        Checkpointer(model=torch.nn.Linear(1, 1))
    monkeypatch.setenv("STERNPOST_ATTEMPT", "1-a")
    monkeypatch.setenv("STERNPOST_ATTEMPT_NUMBER", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(CheckpointError, match="init_process_group"):
        Checkpointer(model=torch.nn.Linear(1, 1))


def test_a_sidecar_that_stays_silent_is_an_error_that_says_where_to_look(
    surroundings: Any, trainer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(1)
    monkeypatch.setattr(sidecar_link, "SILENT_SECONDS", 0.1)
    training = Training()
    with pytest.raises(RestoreError, match="sternpost-checkpoint"):
        training.checkpointer.restore()


def test_a_full_memory_volume_is_an_error_that_names_the_setting(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    trainer(1)
    running()
    training = Training()

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CheckpointError, match=r"spec\.checkpoint\.sharedMemory"):
        training.checkpointer.restore()


def test_folders_of_ranks_that_are_elsewhere_now_are_freed(
    surroundings: Any, running: Callable[..., Any], trainer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(1)
    running()
    foreign = surroundings.shm / "checkpoint" / "rank-7"
    foreign.mkdir(parents=True)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    Training().checkpointer.restore()
    assert not foreign.exists()


def test_sigterm_stores_what_is_pending(
    surroundings: Any, trainer: Callable[..., None], running: Callable[..., Any]
) -> None:
    trainer(1)
    service = running()
    training = Training()
    training.checkpointer.restore()
    training.checkpointer.save(1)
    training.checkpointer.save(2)
    service.stop()
    assert [files.complete for files in surroundings.catalog.generations()] == [True, True]
    status = read_status(surroundings.slot(0).parent / "persisted.json")
    assert {entry.progress for entry in status.slots.values()} == {Progress.COMMITTED}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("sternpost_checkpoint.sidecar.service", ["torch", "obstore"]),
        ("sternpost_checkpoint.client.checkpointer", ["pydantic", "structlog", "zstandard", "typer", "obstore"]),
    ],
)
def test_neither_side_imports_what_its_image_lacks(module: str, forbidden: list[str]) -> None:
    code = f"import sys\nfor name in {forbidden!r}: sys.modules[name] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
