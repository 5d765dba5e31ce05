"""Which codec, and whether as a difference to an earlier state: pure decisions from measurements."""
