"""The process beside the trainer: shared memory in, committed generations out."""
