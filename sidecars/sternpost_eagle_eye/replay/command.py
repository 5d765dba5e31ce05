"""`sternpost-eagle-eye replay`: what the judge says of a recording, for people or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from sternpost_eagle_eye.replay.player import Player, Verdict
from sternpost_eagle_eye.replay.recording import Recording


def replay_file(path: Path, *, as_json: bool, out: TextIO | None = None, notes: TextIO | None = None) -> int:
    """Print each verdict when it falls, and at the end, to `notes`, what was dropped and why. Returns how many there were.

    Raises OSError for a file that cannot be read.
    """
    out, notes = out or sys.stdout, notes or sys.stderr
    player, told = Player(), 0
    with path.open("rb") as file:
        recording = Recording(file)
        for t, vector in recording:
            for verdict in player.feed(t, vector):
                _print(verdict, out, as_json=as_json)
                told += 1
    for verdict in player.finish():
        _print(verdict, out, as_json=as_json)
        told += 1
    print(f"{recording.lines} lines, {player.taken} counted, {told} anomalies", file=notes)
    for reason, count in sorted((recording.dropped + player.dropped).items()):
        print(f"dropped: {count} {reason}", file=notes)
    if player.jumps:
        print(f"clocks set: {player.jumps} times; such a worker's times count from then on as differences", file=notes)
    return told


def _print(verdict: Verdict, out: TextIO, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(verdict)), file=out, flush=True)
        return
    who = "the job" if verdict.worker is None else f"worker {verdict.worker} on {verdict.node or 'an unknown node'}"
    what = "evict" if verdict.evict else "suspect"
    print(
        f"{verdict.t:12.1f}  {verdict.kind:13} {who}, {what}, confidence {verdict.confidence:.2f}: {verdict.evidence}",
        file=out,
        flush=True,
    )
