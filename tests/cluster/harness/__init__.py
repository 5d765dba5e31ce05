"""A real Kubernetes cluster on one Linux machine, without Docker: for the cluster tests.

Each node is a set of namespaces (mounts, processes, network, host name) with a first process of its own, in which a
containerd, a kubelet and a kube-proxy run; the control plane is one more. When a first process ends, the kernel ends all that ran
there and takes the mounts, the network and the firewall rules with it. That is how a node is lost here, and how the harness
cleans up.
"""
