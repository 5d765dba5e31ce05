"""Runs inside an image: start a command and print the CPU time it takes until it has settled. Standard library only.

Settled is a process that has used next to no CPU for a second, or has ended: what it does from then on is work, not start.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

QUIET_SECONDS = 1.0
QUIET_CPU_SECONDS = 0.05
"""Used within QUIET_SECONDS: no more than a look at the clock now and then, or one more try to reach a server."""
LIMIT_SECONDS = 60.0


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 -- no import that is not needed
            fields = stat.read().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    if fields[0] == "Z":
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start the command line given; print JSON as the last line."""
    begun = time.monotonic()
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2)
    used, changed = 0.0, begun
    while True:
        time.sleep(0.02)
        now, cpu = time.monotonic(), cpu_seconds(process.pid)
        if cpu is None or now - changed > QUIET_SECONDS or now - begun > LIMIT_SECONDS:
            break
        if cpu > used + QUIET_CPU_SECONDS:
            used, changed = cpu, now
    running = process.poll() is None
    if running:
        process.kill()
    process.wait()
    used_by_it = resource.getrusage(resource.RUSAGE_CHILDREN)  # exact, also for a process that ended between two looks
    print(
        json.dumps(
            {
                "cpuSeconds": round(used_by_it.ru_utime + used_by_it.ru_stime, 3),
                "seconds": round(changed - begun, 2),
                "running": running,
                "exitCode": None if running else process.returncode,
            }
        )
    )


if __name__ == "__main__":
    main()
