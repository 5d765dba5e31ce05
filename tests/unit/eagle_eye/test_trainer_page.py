"""What a trainer's page is taken to mean."""

from __future__ import annotations

import pytest

from sternpost_eagle_eye.collect.page import parse_page
from sternpost_eagle_eye.collect.trainer import rank_fields


@pytest.mark.parametrize(("waiting", "phase"), [("0.0", "train"), ("1.0", "checkpoint")])
def test_a_checkpointer_that_waits_says_so_where_the_script_does_not(waiting: str, phase: str) -> None:
    page = parse_page(
        'sternpost_phase{phase="train",rank="0"} 1.0\n'
        'sternpost_phase{phase="checkpoint",rank="0"} 0.0\n'
        f'sternpost_checkpoint_waiting{{rank="0"}} {waiting}\n'
    )
    assert rank_fields(page)["phase"] == phase
