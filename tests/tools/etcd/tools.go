//go:build tools

// The store of the tests' Kubernetes, pinned.
package tools

import _ "go.etcd.io/etcd/server/v3"
