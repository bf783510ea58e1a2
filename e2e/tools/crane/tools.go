//go:build tools

// Package tools pins crane and everything it is built from.
package tools

import _ "github.com/google/go-containerregistry/cmd/crane"
