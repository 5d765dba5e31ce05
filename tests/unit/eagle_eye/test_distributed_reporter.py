"""The communication hook, with real gloo ranks in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RANK_SCRIPT = Path(__file__).with_name("gloo_rank.py")


def run_ranks(world_size: int, **options: object) -> list[dict[str, object]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
    }
    environ.pop("STERNPOST_METRICS_PORT", None)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANK_SCRIPT), json.dumps(options)],
            env=environ | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [rank.communicate(timeout=90)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * world_size
        return [json.loads(output.splitlines()[-1]) for output in outputs]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, object]]:
    # Three: a third is no binary fraction, so that multiplying by it and dividing by three differ in the last bit.
    return run_ranks(3, steps=6, slow_rank=1, slow_seconds=0.15, quick_seconds=0.03)


def test_the_slow_rank_computes_longer_while_the_others_wait(ranks: list[dict[str, object]]) -> None:
    assert [rank["step"] for rank in ranks] == [6, 6, 6]
    computes = [rank["computeSum"] for rank in ranks]
    waits = [rank["stepSum"] - rank["computeSum"] for rank in ranks]
    assert computes[1] > 6 * 0.15
    for quick in (0, 2):
        assert computes[quick] < 0.7 * computes[1]
        assert waits[quick] > 6 * 0.06
        assert waits[quick] > 2 * waits[1]
    assert [rank["inCollectiveAfterSteps"] for rank in ranks] == [0, 0, 0]


def test_gradients_equal_those_of_ddp_without_a_hook_to_the_bit(ranks: list[dict[str, object]]) -> None:
    assert [rank["equal"] for rank in ranks] == [True, True, True]


def test_a_training_image_needs_none_of_the_sidecars_libraries(ranks: list[dict[str, object]]) -> None:
    assert [rank["foreign"] for rank in ranks] == [[], [], []]
