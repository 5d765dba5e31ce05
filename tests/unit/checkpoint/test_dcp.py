"""torch.distributed.checkpoint on Sternpost's storage, with the real torch: one process, and several on gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.dcp import SternpostReader, SternpostWriter
from sternpost_checkpoint.dcp import session as dcp_session
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
CheckpointException = dcp.api.CheckpointException
SCRIPT = Path(__file__).resolve().parents[2] / "support" / "dcp_ranks.py"


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(dcp_session, "_sessions", {})
    return (tmp_path / "store").as_uri()


def catalog(uri: str) -> Catalog:
    return Catalog(FileStore(Path(uri.removeprefix("file://"))))


def new_process(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would find it."""
    monkeypatch.setattr(dcp_session, "_sessions", {})


def whole_and_newest(uri: str) -> Generation:
    there = catalog(uri)
    found = newest((files.generation for files in there.generations() if files.complete), there.runs())
    assert found is not None
    assert verify_generation(there, found) == []
    return found


def run_ranks(task: str, world: int, uri: str) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), task, str(rank), str(world), str(port), uri],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(world)
    ]
    try:
        outputs = [process.communicate(timeout=100)[0].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0] * world, "\n".join(outputs)[-6000:]


def state() -> dict[str, Any]:
    return {
        "model": {"w": torch.arange(12.0).reshape(3, 4).t(), "b": torch.ones(3, dtype=torch.float8_e4m3fn)},
        "optimizer": {"state": {0: {"exp_avg": torch.full((4,), 2.0), "step": torch.tensor(3)}}, "lr": 0.1},
        "epoch": 4,
        "note": {"text": "ä", "pair": (1, torch.tensor([5, 6])), "bytes": b"x"},
        "list": [torch.zeros(2), {"a": 1.5}],
    }


def blank(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, dict):
        return {key: blank(item) for key, item in value.items()}
    return [blank(item) for item in value] if isinstance(value, list) else None


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(
            one.view(torch.uint8) if one.element_size() == 1 else one,
            other.view(torch.uint8) if one.element_size() == 1 else other,
        )
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for item, kept in zip(one, other, strict=True):
            assert_same(item, kept)
    else:
        assert one == other


def test_what_was_saved_is_loaded(uri: str) -> None:
    dcp.save(state(), storage_writer=SternpostWriter(uri, step=7))
    assert whole_and_newest(uri) == Generation(7, 1)
    target = blank(state())
    dcp.load(target, storage_reader=SternpostReader(uri))
    assert_same(target, state())


def test_nothing_that_is_written_is_a_pickle_or_a_zip(uri: str) -> None:
    dcp.save(state(), storage_writer=SternpostWriter(uri))
    for path in Path(uri.removeprefix("file://")).rglob("*"):
        if path.is_file() and path.suffix != ".json":
            assert path.read_bytes()[:8] == b"STERNSHD"
            assert b"PK\x03\x04" not in path.read_bytes()


def test_steps_and_runs(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dcp.save(state(), storage_writer=SternpostWriter(uri), checkpoint_id="step-10")
    dcp.save(state(), storage_writer=SternpostWriter(uri))
    assert whole_and_newest(uri) == Generation(11, 1)
    new_process(uri, monkeypatch)
    dcp.save(state(), storage_writer=SternpostWriter(uri))
    assert whole_and_newest(uri) == Generation(12, 2)
    # Back to step 10: what lies beyond is given up when the next one is saved.
    new_process(uri, monkeypatch)
    with pytest.raises(CheckpointException, match="step 11 is not behind 000000000012-r000002"):
        dcp.save(state(), storage_writer=SternpostWriter(uri, step=11))
    dcp.load(blank(state()), storage_reader=SternpostReader(uri, step=10))
    dcp.save(state(), storage_writer=SternpostWriter(uri, step=11))
    assert whole_and_newest(uri) == Generation(11, 3)
    with pytest.raises(CheckpointException, match="no complete generation of step 12 on the current line"):
        dcp.load(blank(state()), storage_reader=SternpostReader(uri, step=12))
    dcp.load(blank(state()), storage_reader=SternpostReader(uri, step=12, run=2))


def test_a_step_is_saved_once(uri: str) -> None:
    dcp.save(state(), storage_writer=SternpostWriter(uri, step=3))
    with pytest.raises(CheckpointException, match="is there already"):
        dcp.save(state(), storage_writer=SternpostWriter(uri, step=3))
    assert whole_and_newest(uri) == Generation(3, 1)
    assert len(list(Path(uri.removeprefix("file://")).rglob("*.shard"))) == 1


def test_keep_collects(uri: str) -> None:
    for step in (1, 2, 3):
        dcp.save(state(), storage_writer=SternpostWriter(uri, step=step, keep=2))
    assert [files.generation.step for files in catalog(uri).generations()] == [2, 3]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_async_save(uri: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "process":
        pytest.importorskip("torch.distributed.checkpoint._async_process_executor")
        run_ranks("save_async_in_a_process", 1, uri)
    else:
        dcp.async_save(state(), storage_writer=SternpostWriter(uri, step=5)).result()
        target = blank(state())
        dcp.load(target, storage_reader=SternpostReader(uri))
        assert_same(target, state())
    assert whole_and_newest(uri).step == 5


def test_a_tensor_of_another_type_is_converted(uri: str) -> None:
    dcp.save({"model": {"w": torch.arange(4.0)}}, storage_writer=SternpostWriter(uri))
    target = {"model": {"w": torch.zeros(4, 2, dtype=torch.bfloat16)[:, 0]}}
    dcp.load(target, storage_reader=SternpostReader(uri))
    assert target["model"]["w"].tolist() == [0, 1, 2, 3]


def test_the_whole_state_without_a_target(uri: str) -> None:
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    dcp.save(state(), storage_writer=SternpostWriter(uri))
    assert_same(_load_state_dict_from_keys(storage_reader=SternpostReader(uri))["model"], state()["model"])


def test_errors_name_what_is_wrong(uri: str) -> None:
    class Strange:
        pass

    with pytest.raises(CheckpointException, match=r"extra/x is a .*Strange"):
        dcp.save({"x": Strange()}, storage_writer=SternpostWriter(uri))
    with pytest.raises(CheckpointException, match="make it dense"):
        dcp.save({"x": torch.eye(2).to_sparse()}, storage_writer=SternpostWriter(uri))
    with pytest.raises(CheckpointException, match="has no complete generation"):
        dcp.load({"x": torch.zeros(1)}, storage_reader=SternpostReader(uri))
    with pytest.raises(CheckpointError, match="does not end with the step"):
        SternpostWriter(uri).reset("final")
    planner = dcp.DefaultSavePlanner(enable_plan_caching=True)
    dcp.save(state(), storage_writer=SternpostWriter(uri), planner=planner)
    with pytest.raises(CheckpointException, match="enable_plan_caching=False"):
        dcp.save(state(), storage_writer=SternpostWriter(uri), planner=planner)


def test_a_damaged_shard_is_refused(uri: str) -> None:
    dcp.save(state(), storage_writer=SternpostWriter(uri))
    shard = next(Path(uri.removeprefix("file://")).rglob("*.shard"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CheckpointException, match="do not match their hash"):
        dcp.load(blank(state()), storage_reader=SternpostReader(uri))


def test_several_ranks_and_another_number_of_them(uri: str) -> None:
    run_ranks("save", 2, uri)
    assert whole_and_newest(uri) == Generation(5, 1)
    target = {"model": {"columns": torch.zeros(7, 6), "few": torch.zeros(1, 3)}, "steps": None}
    dcp.load(target, storage_reader=SternpostReader(uri))
    assert target["steps"] == [1, 2, 3]
    assert torch.equal(target["model"]["columns"], torch.arange(42.0).reshape(7, 6))
    assert torch.equal(target["model"]["few"], torch.arange(3.0).reshape(1, 3))
    run_ranks("go_on", 3, uri)
    assert whole_and_newest(uri) == Generation(6, 2)


def test_fsdp2_with_async_and_training(uri: str, tmp_path: Path) -> None:
    run_ranks("save_async", 2, uri)
    assert whole_and_newest(uri).step == 6
    run_ranks("train", 2, (tmp_path / "training").as_uri())
