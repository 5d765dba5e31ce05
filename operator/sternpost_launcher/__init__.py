"""The first process of the trainer container: preflight, ranks, restart in place. Standard library only, Python >= 3.9."""
