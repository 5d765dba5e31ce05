"""Measurements of whole jobs on one machine."""
