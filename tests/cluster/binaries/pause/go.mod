// The sandbox process of the cluster tests' Pods; standard library only.
module sternpost.dev/tests/cluster/binaries/pause

go 1.24.0
