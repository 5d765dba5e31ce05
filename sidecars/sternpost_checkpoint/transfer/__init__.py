"""Generations into other forms and back, for people and tools. Needs no torch."""
