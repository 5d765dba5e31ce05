"""Triton kernels that may run on the trainer's GPU before the copy: less is copied then. No numba here."""
