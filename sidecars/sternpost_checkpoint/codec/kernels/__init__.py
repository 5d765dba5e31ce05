"""Compiled kernels of the codecs: numba, without the GIL."""
