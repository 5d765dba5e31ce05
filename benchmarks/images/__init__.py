"""Figures of the container images."""
