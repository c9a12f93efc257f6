//go:build tools

// Prometheus and promtool, as the tests run them, pinned.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
