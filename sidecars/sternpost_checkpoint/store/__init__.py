"""Where generations are kept: one interface, one conformance suite."""
