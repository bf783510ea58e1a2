//! Stories on a real Kubernetes with two nodes: containerd 1.6 on one, 2.4 on the other.

mod boot;
mod conditions;
mod faults;
mod ground;
mod nodes;
mod operator;
mod operators;
mod parts;
mod prometheus;
mod pulls;
mod removal;
mod rights;
mod rules;
