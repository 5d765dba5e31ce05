"""How well eagle-eye names what is wrong: recordings of simulated jobs with injected faults, and public series."""
