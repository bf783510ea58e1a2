//! Stories on a real Kubernetes with two nodes: containerd 1.6 on one, 2.4 on the other.

mod boot;
mod conditions;
mod credentials;
mod faults;
mod ground;
mod nodes;
mod operator;
mod operators;
mod own_registry;
mod parts;
mod prometheus;
mod pulls;
mod removal;
mod rights;
mod rules;
mod store;
mod turns_bad;
