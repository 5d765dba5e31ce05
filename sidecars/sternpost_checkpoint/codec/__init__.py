"""Codecs: a file each, one interface."""
