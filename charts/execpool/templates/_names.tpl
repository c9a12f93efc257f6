{{- define "execpoolPlatform.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 63 | trimAll "-." }}
{{- else if contains "execpool" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimAll "-." }}
{{- else -}}
{{ printf "%s-execpool" .Release.Name | trunc 63 | trimAll "-." }}
{{- end -}}
{{- end -}}

{{- define "execpoolPlatform.labels" -}}
app.kubernetes.io/name: execpool
app.kubernetes.io/instance: {{ quote .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: platform
app.kubernetes.io/part-of: execpool
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: execpool-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* off, also where YAML reads it as false. */}}
{{- define "execpoolPlatform.word" -}}
{{- if kindIs "bool" . -}}{{ ternary "on" "off" . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* "yes" where the sidecars have access to Kubernetes. */}}
{{- define "execpoolPlatform.isOn" -}}
{{- if ne (include "execpoolPlatform.word" .Values.reactor.kubernetes) "off" -}}yes{{- end -}}
{{- end -}}

{{- define "execpoolPlatform.restart" -}}
{{- include "execpoolPlatform.word" .Values.reactor.restart -}}
{{- end -}}

{{/* The resource of a kind of owner. */}}
{{- define "execpoolPlatform.resource" -}}
{{- printf "%ss" (lower .) -}}
{{- end -}}
