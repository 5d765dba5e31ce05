"""TrainingJob, Attempt and Anomaly as pydantic models: the one source of `crds/*.yaml`."""
