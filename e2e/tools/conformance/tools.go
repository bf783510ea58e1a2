//go:build tools

// Package tools pins the OCI distribution conformance suite and everything it is built from.
package tools

import _ "github.com/opencontainers/distribution-spec/conformance"
