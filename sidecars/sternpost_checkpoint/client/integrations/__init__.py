"""The Checkpointer inside of other people's training loops. Each module imports its library; none is imported unasked."""
