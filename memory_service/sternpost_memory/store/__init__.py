"""Where observations and what is computed from them are kept."""
