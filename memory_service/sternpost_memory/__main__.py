"""`python -m sternpost_memory`."""

from sternpost_memory.cli import main

if __name__ == "__main__":
    main()
