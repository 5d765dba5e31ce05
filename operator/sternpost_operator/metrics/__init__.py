"""What the operator measures of itself and of its jobs, for Prometheus."""
