"""What the commands of `sternpost` do; `cli.py` reads their arguments."""
