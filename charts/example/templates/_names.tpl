{{- define "example.name" -}}
{{- if contains "example" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-example{{ end -}}
{{- end -}}

{{/* The name of a Job is a label of its pods, which takes 63 letters. */}}
{{- define "example.jobName" -}}
{{ include "example.name" . | trunc 59 | trimSuffix "-" }}-job
{{- end -}}

{{- define "example.selector" -}}
app.kubernetes.io/name: execpool-example
app.kubernetes.io/instance: {{ quote .Release.Name }}
{{- end -}}

{{- define "example.labels" -}}
{{ include "example.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: execpool
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: execpool-example-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What two charts say of one thing must be the same. */}}
{{- define "example.check" -}}
{{- with include "execpool.unknown" (dict "known" (include "example.known" . | fromJson) "root" "" "path" "" "shown" "" "values" .Values) -}}
  {{- include "execpool.unknown.fail" . -}}
{{- end -}}
{{- if .Values.platform.enabled -}}
{{- $account := .Values.execpool.serviceAccountName -}}
{{- if and $account (ne $account .Values.platform.serviceAccount.name) -}}
  {{- fail (printf "execpool.serviceAccountName is %q, but platform.serviceAccount.name %q: the rights would be another's." $account .Values.platform.serviceAccount.name) -}}
{{- end -}}
{{- if and $account (eq (include "execpool.scalar" .Values.platform.reactor.kubernetes) "off") -}}
  {{- if .Values.platform.serviceAccount.create -}}
    {{- fail (printf "execpool.serviceAccountName is %q, but with platform.reactor.kubernetes: off nobody makes that account, and no pod could start: set execpool.serviceAccountName to nothing, too." $account) -}}
  {{- else if ne (dig "kubernetes" "auto" (.Values.execpool.reactor | default dict) | include "execpool.scalar") "off" -}}
    {{- fail "platform.reactor.kubernetes is off, so that sidecars have no rights, but execpool.reactor.kubernetes is not: each call would be refused. Turn it off, too." -}}
  {{- end -}}
{{- end -}}
{{- $sidecar := dig "restart" "off" (.Values.execpool.reactor | default dict) | include "execpool.scalar" -}}
{{- $rights := .Values.platform.reactor.restart | include "execpool.scalar" -}}
{{- if and (ne $sidecar $rights) (or (has $sidecar (list "evict" "rollout")) (has $rights (list "evict" "rollout"))) -}}
  {{- fail (printf "execpool.reactor.restart is %q, but platform.reactor.restart %q: the rights would not fit." $sidecar $rights) -}}
{{- end -}}
{{- if and .Values.execpool.readinessGate.enabled (not .Values.platform.reactor.condition) -}}
  {{- fail "execpool.readinessGate.enabled, but platform.reactor.condition is false: the sidecars would have no right to set the condition, and no pod would become ready." -}}
{{- end -}}
{{- end -}}
{{- end -}}
