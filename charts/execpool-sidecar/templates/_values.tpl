{{/*
What all other templates go by: the values, and what follows from them.

Every template takes the chart's own context, or a list of it and the alias under which the library
is a dependency, for a chart that has it more than once:

    {{ include "execpool.sidecar" . }}
    {{ include "execpool.sidecar" (list . "execpoolWorker") }}
*/}}

{{/* The alias. */}}
{{- define "execpool.alias" -}}
{{- if kindIs "slice" . -}}
  {{- last . -}}
{{- else if hasKey .Values "execpool" -}}
  execpool
{{- else -}}
  execpool-sidecar
{{- end -}}
{{- end -}}

{{/* The values under it, as JSON. */}}
{{- define "execpool.values" -}}
{{- $root := . -}}
{{- if kindIs "slice" . -}}{{- $root = first . -}}{{- end -}}
{{- $alias := include "execpool.alias" . -}}
{{- $values := index $root.Values $alias -}}
{{- if not (kindIs "map" $values) -}}
  {{- fail (printf "There are no values under %q. Name the library in Chart.yaml with this alias:  dependencies: [{name: execpool-sidecar, alias: %s, …}]" $alias $alias) -}}
{{- end -}}
{{- if not (hasKey $values "image") -}}
  {{- fail (printf "The values under %q lack the library's defaults: is it in Chart.yaml with  alias: %s,  and did you run  helm dependency build?" $alias $alias) -}}
{{- end -}}
{{- with include "execpool.unknown" (dict "known" (include "execpool.known" . | fromJson) "root" $alias "path" "" "shown" $alias "values" $values) -}}
  {{- include "execpool.unknown.fail" . -}}
{{- end -}}
{{- if not (dig "enabled" true $values) -}}
  {{- fail (printf "%s.enabled is false, but the library's templates are included all the same. Say so at the dependency in Chart.yaml, with  condition: %s.enabled,  and put  {{ if .Values.%s.enabled }}  around the lines that include them." $alias $alias $alias) -}}
{{- end -}}
{{- toJson $values -}}
{{- end -}}

{{/* A value as execpool's environment takes it. YAML reads off as false; no knob takes both. */}}
{{- define "execpool.scalar" -}}
{{- if kindIs "bool" . -}}
  {{- ternary "on" "off" . -}}
{{- else if kindIs "float64" . -}}
  {{- if eq (floor .) . -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else -}}
  {{- toString . -}}
{{- end -}}
{{- end -}}

{{/* The seconds of a duration such as 1m30s, rounded down. */}}
{{- define "execpool.seconds" -}}
{{- $millis := 0 -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- range regexFindAll "[0-9]+[a-z]+" (toString .) -1 -}}
  {{- $unit := regexFind "[a-z]+" . -}}
  {{- $millis = add $millis (mul (regexFind "[0-9]+" . | int64) (get $units $unit | default 0)) -}}
{{- end -}}
{{- div $millis 1000 -}}
{{- end -}}

{{/* What the values come to, as JSON; it fails where they contradict each other. */}}
{{- define "execpool.settings" -}}
{{- $v := include "execpool.values" . | fromJson -}}
{{- $root := . -}}
{{- if kindIs "slice" . -}}{{- $root = first . -}}{{- end -}}
{{- $listen := $v.listen | default dict -}}
{{- $reactor := $v.reactor | default dict -}}
{{- $s := dict "values" $v -}}

{{- $_ := set $s "mode" (dig "mode" "sidecar" ($v.shutdown | default dict)) -}}
{{- $_ := set $s "restart" (dig "restart" "off" $reactor | include "execpool.scalar") -}}
{{- $kubernetes := dig "kubernetes" "auto" $reactor | include "execpool.scalar" -}}
{{- if eq $kubernetes "auto" -}}
  {{- $kubernetes = ternary "on" "off" (not (empty $v.serviceAccountName)) -}}
{{- end -}}
{{- $_ := set $s "kubernetes" $kubernetes -}}
{{- $condition := dig "condition" true $reactor | include "execpool.scalar" -}}
{{- $_ := set $s "condition" (ternary "on" "off" (has $condition (list "on" "true"))) -}}
{{- $dry := dig "dry_run" false $reactor | include "execpool.scalar" -}}
{{- $_ := set $s "dryRun" (ternary "on" "off" (has $dry (list "on" "true"))) -}}

{{- $_ := set $s "dir" (dig "dir" "/run/execpool" $listen) -}}
{{- $_ := set $s "port" (dig "port" 5432 $listen | include "execpool.scalar") -}}
{{- $_ := set $s "http" (dig "listen" "[::]:9464" ($v.telemetry | default dict) | include "execpool.scalar" | splitList ":" | last) -}}

{{- $grace := int64 $v.terminationGracePeriodSeconds -}}
{{- $_ := set $s "shutdownGrace" (printf "%ds" (ternary (sub $grace 5) (div $grace 2) (gt $grace 10))) -}}

{{- $upstreams := list -}}
{{- range $index, $upstream := $v.upstreams -}}
  {{- $upstreams = append $upstreams (list $index $upstream | include "execpool.upstream" | fromJson) -}}
{{- end -}}
{{- $_ := set $s "upstreams" $upstreams -}}
{{- include "execpool.check" (list $root $s) -}}
{{- toJson $s -}}
{{- end -}}

{{/* An upstream: its knobs, and the files that are mounted for it. */}}
{{- define "execpool.upstream" -}}
{{- $index := first . -}}
{{- $given := last . -}}
{{- $knobs := omit $given "passwordSecret" "urlSecret" "ca" -}}
{{- $files := list -}}
{{- $place := printf "/var/run/secrets/execpool/%d" (int $index) -}}
{{- with $given.passwordSecret -}}
  {{- $_ := set $knobs "password_file" (printf "%s/password" $place) -}}
  {{- $files = append $files (dict "secret" (dict "name" .name "items" (list (dict "key" (.key | default "password") "path" (printf "%d/password" (int $index)))))) -}}
{{- end -}}
{{- with $given.ca -}}
  {{- if $given.url -}}
    {{- $_ := set $knobs "url" (printf "%s%ssslrootcert=%s/ca.crt" $given.url (ternary "&" "?" (contains "?" $given.url)) $place) -}}
  {{- end -}}
  {{- $items := list (dict "key" (.key | default "ca.crt") "path" (printf "%d/ca.crt" (int $index))) -}}
  {{- if .secret -}}
    {{- $files = append $files (dict "secret" (dict "name" .secret "items" $items)) -}}
  {{- else -}}
    {{- $files = append $files (dict "configMap" (dict "name" .configMap "items" $items)) -}}
  {{- end -}}
{{- end -}}
{{- $user := "app" -}}
{{- /* As it stands in a URL. */ -}}
{{- $name := $given.name | default "" -}}
{{- if ne $name "*" -}}{{- $name = $name | urlquery | replace "+" "%20" -}}{{- end -}}
{{- if $given.url -}}
  {{- $user = regexReplaceAll "^postgres(?:ql)?://(?:([^@/?]*)@)?.*$" $given.url "${1}" -}}
  {{- $database := regexReplaceAll "^postgres(?:ql)?://[^/?]*/?([^?]*).*$" $given.url "${1}" | default $user -}}
  {{- $name = $name | default $database -}}
{{- else if not (hasKey $given "any_user") -}}
  {{- /* Nobody here knows the user in the Secret, so the app can't name it. */ -}}
  {{- $_ := set $knobs "any_user" true -}}
{{- end -}}
{{- dict "knobs" $knobs "files" $files "urlSecret" $given.urlSecret "user" $user "name" $name | toJson -}}
{{- end -}}
