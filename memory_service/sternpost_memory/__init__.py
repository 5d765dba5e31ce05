"""Memory service: observations are kept for good, and grow into topic documents that people and agents can search."""
