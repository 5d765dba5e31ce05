"""Kubernetes as a cluster: what is observed comes from watches, what is done goes to the API server."""
