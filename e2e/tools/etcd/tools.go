//go:build tools

// Package tools pins etcd, in which Kubernetes keeps everything.
package tools

import _ "go.etcd.io/etcd/server/v3"
