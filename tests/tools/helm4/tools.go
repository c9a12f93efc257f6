//go:build tools

// Helm 4, as the tests of the charts run it, pinned.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
