"""One detector a file. Each is a state machine over the tracked vectors; time comes in as an argument."""
