"""Shared memory between trainer and sidecar. Standard library, numpy and xxhash only: both sides import it."""
