"""Decisions, and nothing else: no client, no clock, no socket. Time comes in as an argument."""
