{{/* What a sidecar does at all: the right's other half, as "pods/status UPDATE". */}}
{{- define "execpoolPlatform.changes" -}}
{{- $restart := include "execpoolPlatform.restart" . -}}
{{- $changes := list "pods UPDATE" "events CREATE" "events UPDATE" -}}
{{- if .Values.reactor.condition -}}
  {{- $changes = append $changes "pods/status UPDATE" -}}
{{- end -}}
{{- if eq $restart "evict" -}}
  {{- $changes = append $changes "pods/eviction CREATE" -}}
{{- end -}}
{{- if eq $restart "rollout" -}}
  {{- range .Values.reactor.owners -}}
    {{- $changes = append $changes (printf "%s UPDATE" (include "execpoolPlatform.resource" .kind)) -}}
  {{- end -}}
{{- end -}}
{{- $quoted := list -}}
{{- range uniq $changes -}}{{- $quoted = append $quoted (quote .) -}}{{- end -}}
{{- join ", " $quoted -}}
{{- end -}}

{{- define "execpoolPlatform.owners" -}}
{{- $quoted := list -}}
{{- range .Values.reactor.owners -}}
  {{- $quoted = append $quoted (printf "%s/%s" (include "execpoolPlatform.resource" .kind) .name | quote) -}}
{{- end -}}
{{- join ", " $quoted -}}
{{- end -}}
