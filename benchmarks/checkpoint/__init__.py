"""Figures of the checkpoint engine."""
