"""The operator as a process on Kubernetes: who leads, what is reconciled when, and what is told of it."""
