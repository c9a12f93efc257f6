//go:build tools

// The Prometheus Operator, pinned for the schemas of PodMonitor and PrometheusRule: nothing of it is built.
package tools
