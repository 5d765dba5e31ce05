"""The trainer's side; the only place that imports torch. Beyond it: standard library, numpy, xxhash, prometheus_client."""
