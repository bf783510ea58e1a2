//! Stories on a real Kubernetes with two nodes: containerd 1.6 on one, 2.4 on the other.

mod boot;
mod operator;
mod parts;
