{{/* The sidecar's environment: who it is, and the knobs that the values set. Takes the settings. */}}
{{- define "execpool.environment" -}}
{{- $v := .values }}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: CONTAINER_NAME, value: execpool}
{{- with $v.otel.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ quote . }}
{{- end }}
{{- with $v.otel.resourceAttributes }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ include "execpool.attributes" . | quote }}
{{- end }}
{{- range $section := include "execpool.sections" . | splitList " " }}
{{- $knobs := index $v $section | default dict }}
{{- if eq $section "reactor" }}
{{- $knobs = merge (dict "kubernetes" $.kubernetes) $knobs }}
{{- else if eq $section "shutdown" }}
{{- $knobs = merge (dict "mode" $.mode "grace" (dig "grace" $.shutdownGrace $knobs)) $knobs }}
{{- else if eq $section "listen" }}
{{- if eq $v.socket.access "group" }}
{{- $knobs = merge (dict "group" (int64 $v.socket.group)) $knobs }}
{{- else if eq $v.socket.access "mode" }}
{{- $knobs = merge (dict "mode" (dig "mode" "0666" $knobs)) $knobs }}
{{- end }}
{{- end }}
{{- include "execpool.variables" (dict "prefix" (printf "EXECPOOL_%s" (upper $section)) "path" $section "knobs" $knobs) }}
{{- end }}
{{- range $index, $upstream := .upstreams }}
{{- with $upstream.urlSecret }}
- name: EXECPOOL_UPSTREAMS__{{ $index }}__URL
  valueFrom: {secretKeyRef: {name: {{ quote .name }}, key: {{ .key | default "url" | quote }}}}
{{- end }}
{{- include "execpool.variables" (dict "prefix" (printf "EXECPOOL_UPSTREAMS__%d" $index) "path" (printf "upstreams[%d]" $index) "knobs" $upstream.knobs) }}
{{- end }}
{{- end -}}

{{/* Knobs as variables: {prefix: EXECPOOL_BUDGET, path: budget, knobs: {size: 20}} is EXECPOOL_BUDGET__SIZE=20. */}}
{{- define "execpool.variables" -}}
{{- range $key, $value := .knobs }}
{{- $name := printf "%s__%s" $.prefix (upper $key) }}
{{- $path := printf "%s.%s" $.path $key }}
{{- if kindIs "map" $value }}
{{- include "execpool.variables" (dict "prefix" $name "path" $path "knobs" $value) }}
{{- else if not (kindIs "invalid" $value) }}
{{- $text := include "execpool.text" (list $key $value) }}
{{- include "execpool.check.knob" (list $path $text) }}
- name: {{ $name }}
  value: {{ $text | replace "$(" "$$(" | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether a knob takes a text, where a schema could only say that it does not match a pattern. */}}
{{- define "execpool.check.knob" -}}
{{- $path := first . -}}
{{- $text := last . -}}
{{- $name := regexReplaceAll "^upstreams\\[[0-9]+\\]\\.(pool\\.)" $path "${1}" -}}
{{- $name = regexReplaceAll "^upstreams\\[[0-9]+\\]" $name "upstreams[]" -}}
{{- with include "execpool.shapes" . | fromJson | dig $name dict -}}
  {{- if not (regexMatch .pattern $text) -}}
    {{- $hint := ternary " YAML reads a bare 0660 as the number 432: quote it." "" (eq $name "listen.mode") -}}
    {{- fail (printf "%s is %q, but takes %s.%s" $path $text .takes $hint) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* A list is joined: the words of a command as a shell would quote them, others by commas. */}}
{{- define "execpool.text" -}}
{{- $key := first . -}}
{{- $value := last . -}}
{{- if kindIs "slice" $value -}}
  {{- $words := list -}}
  {{- range $value -}}
    {{- $word := include "execpool.scalar" . -}}
    {{- if eq $key "password_command" -}}
      {{- $word = printf "'%s'" (replace "'" "'\\''" $word) -}}
    {{- end -}}
    {{- $words = append $words $word -}}
  {{- end -}}
  {{- join (ternary " " "," (eq $key "password_command")) $words -}}
{{- else -}}
  {{- include "execpool.scalar" $value -}}
{{- end -}}
{{- end -}}

{{- define "execpool.attributes" -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
  {{- $pairs = append $pairs (printf "%s=%s" $key (include "execpool.scalar" $value)) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}
