"""`python3 -m sternpost_checkpoint sidecar|ls|show|verify`."""

from sternpost_checkpoint.cli import main

if __name__ == "__main__":
    main()
