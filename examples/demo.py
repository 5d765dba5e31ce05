"""The demo: train undisturbed, train again through three faults, and compare the weights.

Everything goes through `sternpost run`, as a user would call it. Output is in `demo-output/`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).resolve().parent
JOB = HERE / "gpt" / "job.yaml"
NODES = 6
FAULTS = ("kill:worker=2,step=45", "slow:worker=1,step=120,factor=3", "hang:worker=3,step=230")


def sternpost_run(output: Path, name: str, plain: bool, *extra: str) -> dict[str, Any]:
    """One `sternpost run` of the job; returns its report. A failed run ends the demo with its exit code."""
    report = output / f"{name}.json"
    command = [
        *(str(Path(sys.executable).parent / "sternpost"), "run", str(JOB), "--nodes", str(NODES)),
        *("--state-dir", str(output / f"state-{name}"), "--report", str(report), "--fresh"),
        *(("--plain",) if plain else ()),
        *extra,
    ]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(
            f"demo: the {name} run ended with exit code {code}; its logs are in {output / f'state-{name}' / 'logs'}"
        )
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def verdict(undisturbed: dict[str, Any], disturbed: dict[str, Any]) -> list[tuple[bool, str]]:
    """What the demo promises, each with whether it held."""
    injected = {entry["kind"]: entry for entry in disturbed["injections"]}
    by_cause = {entry["cause"]: entry for entry in disturbed["attempts"]}
    excluded = sorted(node["node"] if isinstance(node, dict) else node for node in disturbed["excludedNodes"])
    checks = []
    for kind, cause, rung in (("kill", "NodeLost", "pods"), ("slow", "SlowNode", "pods"), ("hang", "Hang", "ranks")):
        node = injected.get(kind, {}).get("node")
        found = by_cause.get(cause, {})
        held = bool(node) and found.get("node") == node and found.get("rung") == rung
        checks.append((held, f"{kind}: {node} was named as {found.get('cause')}, repaired by rung {found.get('rung')}"))
    expected = sorted(injected[kind]["node"] for kind in ("kill", "slow") if kind in injected)
    checks.append((excluded == expected, f"excluded nodes: {', '.join(excluded) or 'none'}; no healthy one among them"))
    same = undisturbed["finalHash"] is not None and undisturbed["finalHash"] == disturbed["finalHash"]
    checks.append(
        (
            same,
            f"final weights: {disturbed['finalHash']} {'=' if same else 'differs from'} undisturbed {undisturbed['finalHash']}",
        )
    )
    return checks


def main() -> None:
    """Run both, compare, and say so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    options = parser.parse_args()
    console = Console()
    started = time.monotonic()
    output: Path = options.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    plain = options.plain or not console.is_terminal

    console.rule("1 of 2: undisturbed")
    undisturbed = sternpost_run(output, "undisturbed", plain)
    console.rule("2 of 2: a node is killed, another slowed to a third, a rank hangs")
    disturbed = sternpost_run(
        *(output, "report", plain, "--picture", str(output / "loss.png"), "--topics", str(output)),
        *("--reference", str(output / "undisturbed.json")),
        *(part for fault in FAULTS for part in ("--inject", fault)),
    )
    console.rule("verdict")
    checks = verdict(undisturbed, disturbed)
    for held, text in checks:
        console.print(f"[{'green' if held else 'red'}]{'yes' if held else 'NO '}[/] {text}", highlight=False)
    console.print(f"{time.monotonic() - started:.0f} s in all; look at {output}/report.json, loss.png and *.md")
    if not all(held for held, _ in checks):
        sys.exit(1)


if __name__ == "__main__":
    main()
