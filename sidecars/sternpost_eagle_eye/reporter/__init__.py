"""The trainer's side: measures steps and serves them as Prometheus metrics."""
