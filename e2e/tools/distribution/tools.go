//go:build tools

// Package tools pins distribution and everything it is built from.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
