"""What a sidecar reads about its own worker: the trainer's pages, the launcher's file, the machine."""
