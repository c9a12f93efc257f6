//go:build tools

// Helm 3, as the tests of the charts run it, pinned.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
