//! Stories on a real Kubernetes with two nodes.
