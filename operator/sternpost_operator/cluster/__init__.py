"""Where jobs run: one interface, one conformance suite, Kubernetes and this machine."""
