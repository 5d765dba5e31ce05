"""The ring: each worker's state in the next worker's memory, and every state in memory for whoever needs it again."""
