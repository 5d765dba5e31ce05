"""Run a short job many times without any fault: no healthy node may be excluded, nothing may be restarted."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import Check, progress, publish

JOB = Path(__file__).resolve().parents[2] / "examples" / "gpt" / "short.yaml"


def run_once(folder: Path, number: int) -> dict[str, Any]:
    """One run; returns its report with the wall time. A failed run raises `CalledProcessError`."""
    report = folder / f"report-{number}.json"
    started = time.monotonic()
    subprocess.run(
        [
            *(str(Path(sys.executable).parent / "sternpost"), "run", str(JOB), "--nodes", "4", "--plain"),
            *("--state-dir", str(folder / f"state-{number}"), "--report", str(report)),
        ],
        check=True,
        stdout=sys.stderr,
    )
    result: dict[str, Any] = json.loads(report.read_text())
    return {**result, "wallSeconds": time.monotonic() - started}


def main() -> None:
    """Parse the arguments, run, publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    reports = []
    with tempfile.TemporaryDirectory(prefix="sternpost-quiet-") as folder:
        for number in range(1, options.runs + 1):
            reports.append(run_once(Path(folder), number))
            last = reports[-1]
            progress(
                f"run {number} of {options.runs}: {last['phase']} after {last['wallSeconds']:.1f} s, "
                f"{len(last['excludedNodes'])} excluded, {last['restarts']} restarts, {len(last['anomalies'])} anomalies"
            )
    finished = sum(report["phase"] == "Succeeded" for report in reports)
    excluded = sum(len(report["excludedNodes"]) for report in reports)
    restarts = sum(report["restarts"] for report in reports)
    hashes = {report["finalHash"] for report in reports}
    publish(
        "local.quiet",
        {
            "runs": options.runs,
            "anomalies": sum(len(report["anomalies"]) for report in reports),
            "wallSeconds": {
                "median": statistics.median(report["wallSeconds"] for report in reports),
                "max": max(report["wallSeconds"] for report in reports),
            },
        },
        [
            Check("jobs that succeeded", finished, "jobs", f"{options.runs}", finished == options.runs),
            Check("healthy nodes excluded", excluded, "nodes", "0", excluded == 0),
            Check("restarts", restarts, "restarts", "0", restarts == 0),
            Check("distinct final weights", len(hashes), "hashes", "1", len(hashes) == 1 and None not in hashes),
        ],
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
