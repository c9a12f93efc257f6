{{/*
Names that there are none of, each with the one that was probably meant: a line each, or nothing.
A schema could refuse them, too, but Helm's own words for that neither say where nor what instead.

Takes {known, root, path, shown, values}: the names that there are by path, as "" or "upstreams[]";
where the chart's values have these; where in these the values are, and where in the chart's.
*/}}
{{- define "execpool.unknown" -}}
{{- $known := .known -}}
{{- $root := .root -}}
{{- $here := index $known .path -}}
{{- $path := .path -}}
{{- $shown := .shown -}}
{{- range $name, $value := .values -}}
  {{- $below := printf "%s.%s" $path $name | trimPrefix "." -}}
  {{- $called := printf "%s.%s" $shown $name | trimPrefix "." -}}
  {{- if and (eq $path "") (has $name (list "global" "enabled")) -}}
    {{- /* Helm's own, for a chart that another depends on. */ -}}
  {{- else if not (has $name $here) -}}
    {{- include "execpool.unknown.told" (dict "known" $known "root" $root "path" $path "shown" $shown "name" $name) -}}
  {{- else if and (kindIs "map" $value) (hasKey $known $below) -}}
    {{- include "execpool.unknown" (dict "known" $known "root" $root "path" $below "shown" $called "values" $value) -}}
  {{- else if and (kindIs "slice" $value) (hasKey $known (printf "%s[]" $below)) -}}
    {{- range $index, $one := $value -}}
      {{- if kindIs "map" $one -}}
        {{- include "execpool.unknown" (dict "known" $known "root" $root "path" (printf "%s[]" $below) "shown" (printf "%s[%d]" $called $index) "values" $one) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/*
What `helm lint` takes for a value that somebody has yet to set, it lets pass: `fail` only writes a line
there. A name that there is none of is a mistake all the same, so that it is also no template's.
*/}}
{{- define "execpool.unknown.fail" -}}
{{- fail . -}}
{{- include . dict -}}
{{- end -}}

{{- define "execpool.unknown.told" -}}
{{- $here := index .known .path -}}
{{- $in := ternary "" (printf "%s." .shown) (eq .shown "") -}}
{{- $plain := include "execpool.unknown.plain" .name -}}
{{- $meant := list -}}
{{- $least := 1000 -}}
{{- range $here -}}
  {{- $other := include "execpool.unknown.plain" . -}}
  {{- $distance := include "execpool.unknown.distance" (list $plain $other) | int -}}
  {{- if and (ge (len $plain) 5) (hasPrefix (trunc 5 $plain) $other) -}}
    {{- $distance = min $distance 2 | int -}}
  {{- end -}}
  {{- if and (lt $distance $least) (le $distance (max 2 (div (len $plain) 3) | int)) -}}
    {{- $least = $distance -}}
    {{- $meant = list (printf "%s%s" $in .) -}}
  {{- end -}}
{{- end -}}
{{- if gt $least 0 -}}
  {{- /* The very name, but elsewhere: size is a knob of budget. */ -}}
  {{- $elsewhere := list -}}
  {{- range $path, $names := .known -}}
    {{- range $names -}}
      {{- if and (ne $path $.path) (eq $plain (include "execpool.unknown.plain" .)) -}}
        {{- $elsewhere = append $elsewhere (list $.root $path . | join "." | replace ".." "." | trimPrefix ".") -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if and $elsewhere (le (len $elsewhere) 4) -}}{{- $meant = concat $meant $elsewhere -}}{{- end -}}
{{- end -}}
{{- printf "\n%s%s: there is no such value." $in .name -}}
{{- with $meant -}}{{- printf " Did you mean %s?" (join " or " .) -}}{{- end -}}
{{- printf " The names %s are: %s." (ternary "here" (printf "in %s" .shown) (eq .shown "")) (join ", " $here) -}}
{{- end -}}

{{/* app_probe, appProbe and app-probe are one to who has forgotten which. */}}
{{- define "execpool.unknown.plain" -}}
{{- lower . | replace "_" "" | replace "-" "" -}}
{{- end -}}

{{/* How many letters must be put in, taken out or changed to make one word of another. */}}
{{- define "execpool.unknown.distance" -}}
{{- $other := splitList "" (last .) -}}
{{- $row := untilStep 0 (len $other | add1 | int) 1 -}}
{{- range $i, $letter := splitList "" (first .) -}}
  {{- $next := list (add1 $i) -}}
  {{- range $j, $its := $other -}}
    {{- $changed := add (index $row $j) (ternary 0 1 (eq $letter $its)) -}}
    {{- $next = append $next (min $changed (add1 (index $row (add1 $j | int))) (add1 (last $next))) -}}
  {{- end -}}
  {{- $row = $next -}}
{{- end -}}
{{- last $row -}}
{{- end -}}
