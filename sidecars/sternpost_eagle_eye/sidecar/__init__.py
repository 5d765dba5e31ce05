"""The process beside the trainer."""
