"""Hostile storages, a function each: what it writes, and a word of the error that must come. Run by test_attacks.py."""
