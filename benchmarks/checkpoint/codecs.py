"""Measure the codecs on states of real trainings: how small, how fast, and whether the choice is the best one.

    python -m benchmarks.checkpoint.codecs [--json] [--quick] [--only gpt] [--no-speed | --no-size]

The states are recorded on first use (benchmarks.checkpoint.states). `--quick`: one branch of each architecture and the
lowest and highest learning rate.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import asdict
from typing import Any

from benchmarks.checkpoint.codecs_size import Sizing, sizing
from benchmarks.checkpoint.codecs_speed import (
    Timing,
    chosen_by_default,
    codec_timings,
    fastest,
    mask_speeds,
    peer_timings,
)
from benchmarks.checkpoint.states import INTERVALS, Branch, branches, record
from benchmarks.results import Check, progress, publish
from sternpost_checkpoint.adaptive.policy import Exactness

LOSSLESS_GOALS = {1: 1.48, 10: 1.48, 50: 1.44}
ADAPTIVE_GOAL, ERROR_GOAL = 2.8, 0.02
HIGHEST = 3e-4
ALL = ("gpt", "mixture", "convolutional")


def sizes(wanted: list[Branch]) -> tuple[dict[str, Any], list[Check]]:
    """Every branch and interval."""
    lossless: dict[tuple[Branch, int], Sizing] = {}
    adaptive: dict[tuple[Branch, int], Sizing] = {}
    for branch in wanted:
        for interval in INTERVALS:
            lossless[branch, interval] = found = sizing(branch, interval, Exactness.LOSSLESS, each=True)
            if branch.rate == HIGHEST:
                adaptive[branch, interval] = sizing(branch, interval, Exactness.ADAPTIVE, each=False)
            progress(
                f"{branch.architecture} {branch.stage} {branch.weights} {branch.rate:g}/{interval}: p {found.changed:.3f}, "
                f"weights {found.ratio_of('weight'):.1f}x, whole {found.ratio:.2f}x, worst choice {found.worst:.4f}"
            )
    worst = max(lossless.values(), key=lambda found: found.worst)
    checks = [
        Check("prefer: size, worst tensor over the best single codec", worst.worst, "x", "<= 1.02", worst.worst <= 1.02)
    ]
    for interval, goal in LOSSLESS_GOALS.items():
        ratios = [f.ratio for (branch, i), f in lossless.items() if i == interval and branch.rate == HIGHEST]
        if ratios:
            name = f"lossless, lr 3e-4, interval {interval}, least ratio of the whole state"
            checks.append(Check(name, min(ratios), "x", f">= {goal}", min(ratios) >= goal))
    if adaptive:
        least, error = min(f.ratio for f in adaptive.values()), max(f.error or 0.0 for f in adaptive.values())
        checks += [
            Check(
                "adaptive, lr 3e-4, least ratio of the whole state",
                least,
                "x",
                f">= {ADAPTIVE_GOAL}",
                least >= ADAPTIVE_GOAL,
            ),
            Check("adaptive, lr 3e-4, largest error of an update", error, "", f"<= {ERROR_GOAL}", error <= ERROR_GOAL),
        ]
    rare = [found.ratio_of("weight") for found in lossless.values() if found.changed <= 0.05]
    if rare:
        checks.append(Check("weights with p <= .05, least ratio", min(rare), "x", ">= 20", min(rare) >= 20))
    figures = [
        {"branch": asdict(branch), "interval": interval, **_sizing_json(found)}
        | ({"adaptive": _sizing_json(adaptive[branch, interval])} if (branch, interval) in adaptive else {})
        for (branch, interval), found in lossless.items()
    ]
    return {"sizes": figures}, checks


def _sizing_json(found: Sizing) -> dict[str, Any]:
    ratios = {
        kind: {name: round(found.raw[kind] / size, 3) for name, size in sizes.items()}
        for kind, sizes in found.codecs.items()
    }
    return {
        "changed": round(found.changed, 4),
        "ratio": round(found.ratio, 3),
        "ratios": {kind: round(found.ratio_of(kind), 3) for kind in found.raw},
        "codecs": ratios,
        "worst": round(found.worst, 4),
        "worstTensor": found.worst_tensor,
        "updateError": found.error,
    }


def speeds() -> tuple[dict[str, Any], list[Check]]:
    """The mask beside memcpy, and a mixed state beside zstd-1 and zipnn."""
    masks = mask_speeds()
    least = min(masks[share]["encode"] for share in ("0", "0.01", "0.05", "0.1"))
    checks = [Check("bitmask at p <= .1, memcpy's time over its own", least, "x", ">= 0.5", least >= 0.5)]
    states = {}
    for branch, interval in (
        (Branch("gpt", "late", 3e-6, "bfloat16"), 1),
        (Branch("gpt", "late", 3e-4, "bfloat16"), 10),
    ):
        record([branch])
        timings, peers = codec_timings(branch, interval), peer_timings(branch, interval)
        label = f"lr {branch.rate:g}, interval {interval}"
        choices = {
            "default": chosen_by_default(branch, interval),
            "smallest": {kind: min(found, key=lambda name: found[name].stored) for kind, found in timings.items()},
        }
        default = _total(timings, choices["default"])
        slower = default.encode / peers["zstd-1"].encode
        checks.append(
            Check(f"default lossless choice, {label}, time over zstd-1", slower, "x", "<= 1.2", slower <= 1.2)
        )
        back = default.decode / default.encode
        checks.append(Check(f"the same, {label}, decode over encode", back, "x", "<= 1", back <= 1))
        if "zipnn" in peers:
            choices["as small as zipnn"] = equal = fastest(timings, peers["zipnn"].stored)
            quicker = peers["zipnn"].encode / _total(timings, equal).encode
            checks.append(Check(f"at zipnn's ratio, {label}, speed over zipnn", quicker, "x", ">= 2", quicker >= 2))
        states[label] = {
            "codecs": {kind: {name: _speed(t) for name, t in found.items()} for kind, found in timings.items()},
            "peers": {name: _speed(t) for name, t in peers.items()},
            "choices": {
                name: {"codecs": choice, **_speed(_total(timings, choice))} for name, choice in choices.items()
            },
        }
        progress(f"{label}: {states[label]['choices']}, {states[label]['peers']}")
    return {"mask": masks, "speeds": states}, checks


def _total(timings: dict[str, dict[str, Timing]], choice: dict[str, str]) -> Timing:
    parts = [timings[kind][name] for kind, name in choice.items()]
    return Timing(*(sum(getattr(part, what) for part in parts) for what in ("raw", "stored", "encode", "decode")))


def _speed(timing: Timing) -> dict[str, float]:
    found = {"ratio": round(timing.raw / timing.stored, 3), "encodeMBs": round(timing.raw / timing.encode / 1e6)}
    return found | ({"decodeMBs": round(timing.raw / timing.decode / 1e6)} if timing.decode else {})


def main() -> None:
    """Parse, record what is missing, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="late bf16 states, lowest and highest learning rate")
    parser.add_argument("--only", choices=ALL, help="one architecture")
    parser.add_argument("--stage", choices=("early", "late"), help="states of one stage")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--no-size", action="store_true")
    options = parser.parse_args()
    wanted = [
        branch
        for branch in branches((options.only,) if options.only else ALL)
        if options.stage in (None, branch.stage)
        and (not options.quick or ((branch.stage, branch.weights) == ("late", "bfloat16") and branch.rate != 3e-5))
    ]
    if importlib.util.find_spec("zipnn") is None:
        progress("zipnn is not installed: nothing is compared with it (pip install zipnn)")
    figures: dict[str, Any] = {}
    checks: list[Check] = []
    if not options.no_size:
        record(wanted)
        figures, checks = sizes(wanted)
    if not options.no_speed:
        more, further = speeds()
        figures |= more
        checks += further
    publish("checkpoint.codecs", figures, checks, as_json=options.json)


if __name__ == "__main__":
    main()
