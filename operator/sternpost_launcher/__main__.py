"""`python3 -m sternpost_launcher`; the zipapp starts the same `main`."""

from __future__ import annotations

import sys

from sternpost_launcher.command_line import main

if __name__ == "__main__":
    sys.exit(main())
