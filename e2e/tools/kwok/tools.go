//go:build tools

// Package tools pins KWOK, which plays kubelet for a thousand nodes.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
