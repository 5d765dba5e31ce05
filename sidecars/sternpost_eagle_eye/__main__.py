"""`python -m sternpost_eagle_eye`."""

from sternpost_eagle_eye.cli import main

if __name__ == "__main__":
    main()
