"""`python -m tools.dashboards [--check]`, from the root of the repository."""

from __future__ import annotations

import argparse
import sys

from tools.dashboards import files


def main() -> None:
    """Write the dashboards, or say which are stale."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a file is not what the code says")
    if not parser.parse_args().check:
        for path in files.write():
            print(f"wrote {path}")
        return
    stale = files.stale()
    for path in stale:
        print(f"{path} is not what tools/dashboards says; run `make generate`", file=sys.stderr)
    sys.exit(bool(stale))


if __name__ == "__main__":
    main()
