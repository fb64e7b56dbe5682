"""The local one-node Kubernetes cluster behind hack/cluster. See docs/local-cluster.md."""
