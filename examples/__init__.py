"""Examples, and the demo that runs one of them through three faults."""
