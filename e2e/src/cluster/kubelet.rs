//! The files of a node's kubelet, kube-proxy and pod network.

use serde_json::{Value, json};

use super::network::{PODS, pod_network};

/// The configuration of a kubelet (JSON is YAML).
pub(super) fn configuration(cgroup_root: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Nobody but the story can reach it.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "volumePluginDir": "/var/lib/kubelet/plugins-of-volumes",
        "cgroupDriver": "cgroupfs",
        // Two kubelets on one root end each other's pods as orphans.
        "cgroupRoot": cgroup_root,
        "failCgroupV1": false,
        "failSwapOn": false,
        // Lower ones are refused on this kind of machine.
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        // The disk is the machine's, and how full it is no concern of a story.
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
        // Nobody answers there, and at once: no pod waits for a name that does not exist.
        "clusterDNS": ["127.0.0.1"],
        "clusterDomain": "cluster.local",
        "shutdownGracePeriod": "0s",
    })
}

/// The configuration of kube-proxy.
pub(super) fn proxy(node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": node,
        "clientConnection": { "kubeconfig": "/etc/kubernetes/proxy.kubeconfig" },
        // The limit is the machine's, not the namespace's.
        "conntrack": { "maxPerCore": 0 },
    })
}

/// The pod network, as `/etc/cni/net.d` has it.
pub(super) fn pods(number: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": pod_network(number) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}
