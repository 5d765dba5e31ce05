"""The engine on a real S3 server: saves, two writers, restores, the command line and DCP; throttled all the while."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from generation_builder import Builder, Tensor
from s3_faults import Fault, FaultyProxy
from typer.testing import CliRunner
from versitygw import SECRET_KEY

from sternpost_checkpoint import cli
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.dcp import SternpostReader, SternpostWriter
from sternpost_checkpoint.gc import collect
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.sidecar.attempt import Attempt
from sternpost_checkpoint.sidecar.registration import register
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.transfer.writing import commit
from sternpost_checkpoint.verify import verify_generation

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
VALUES = np.random.default_rng(1).standard_normal(2_000_000).astype(np.float32)


def generations(store: Store) -> list[int]:
    return [files.generation.step for files in Catalog(store).generations()]


def test_dcp_and_the_command_line(troubled_store: Store, proxy: FaultyProxy, tmp_path: Path) -> None:
    state = {"model": {"w": torch.from_numpy(VALUES), "b": torch.ones(3, dtype=torch.bfloat16)}, "epoch": 3}
    proxy.plan(Fault.SLOW_DOWN, times=2, method="PUT")
    proxy.plan(Fault.CUT, times=1, method="GET")
    dcp.save(state, storage_writer=SternpostWriter(troubled_store.uri, step=5))
    target: dict[str, Any] = {"model": {"w": torch.zeros(len(VALUES)), "b": torch.zeros(3).bfloat16()}, "epoch": 0}
    proxy.plan(Fault.SLOW_DOWN, times=2, method="GET")
    dcp.load(target, storage_reader=SternpostReader(troubled_store.uri))
    assert torch.equal(target["model"]["w"], state["model"]["w"])
    assert target["epoch"] == 3

    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(cli.app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, repr(result.exception)
        assert SECRET_KEY not in result.output
        return json.loads(result.stdout)

    assert [row["state"] for row in run("ls", troubled_store.uri)["generations"]] == ["complete"]
    assert run("verify", troubled_store.uri)["generations"][0]["ok"]
    run("export", troubled_store.uri, tmp_path / "out", "-f", "safetensors")
    assert run("import", troubled_store.uri, tmp_path / "out", "-f", "safetensors")["generation"].startswith(
        "000000000006"
    )
    assert run("gc", troubled_store.uri, "--keep", 1)["removed"] == ["000000000005-r000001"]
    assert {row["what"] for row in run("bench", "--storage", troubled_store.uri, "--size", "1M")["storage"]}
    assert generations(troubled_store) == [6]
    assert proxy.injected == 5


def test_chains_are_read_and_collected(store: Store) -> None:
    builder = Builder(store)
    new = VALUES.copy()
    new[::7] += 1
    builder.generation(1, [[Tensor("model/w", VALUES, codec="zstd-planes", replicated=True)]])
    builder.generation(
        2, [[Tensor("model/w", new, codec="xor-planes", replicated=True, base=VALUES)]], parent=Generation(1, 1)
    )
    target = np.zeros_like(new)
    from sternpost_checkpoint.restore.wanted import Wanted

    reader = GenerationReader(Catalog(store), Generation(2, 1))
    reader.read([Wanted("model/w", "float32", new.shape, target.data.cast("B"))])
    assert np.array_equal(target, new)
    assert collect(Catalog(store), keep=1) == []
    assert generations(store) == [1, 2]


def test_of_many_that_register_each_gets_a_number_of_its_own(store: Store) -> None:
    numbers: list[int] = []

    def enter(token: str) -> None:
        numbers.append(
            register(
                Catalog(store),
                job_uid=token,
                attempt=Attempt(1, "1-id"),
                current=None,
                restored_step=0,
                restored_run=None,
                token=token,
            )
        )

    threads = [threading.Thread(target=enter, args=(f"token-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


def test_an_answer_that_is_lost_at_each_step_of_a_commit(troubled_store: Store, proxy: FaultyProxy) -> None:
    """The store does it and nobody hears: asked again, there is one whole generation."""
    state = {"model": {"w": torch.arange(1000.0)}}
    for step, path in enumerate(("rank-00000.json", r"\.shard", "manifest.json", "ledger", "latest.json"), start=1):
        writer = SternpostWriter(troubled_store.uri, step=step)
        proxy.plan(Fault.LOST_ANSWER, method="PUT", path=path)
        try:
            dcp.save(state, storage_writer=writer)
        except dcp.api.CheckpointException as error:
            assert "cannot" in str(error) or "is there already" in str(error)  # noqa: PT017
        catalog = Catalog(troubled_store)
        if writer.generation is not None and not _complete(catalog, step):
            commit(catalog, writer.generation, 1)
        for files in catalog.generations():
            if files.complete:
                assert verify_generation(catalog, files.generation) == []
        proxy.plans.clear()
    found = newest((files.generation for files in catalog.generations() if files.complete), catalog.runs())
    assert found == Generation(5, 1)


def _complete(catalog: Catalog, step: int) -> bool:
    return any(files.complete for files in catalog.generations() if files.generation.step == step)
