{{/*
The socket's directory, for the app's container:

          volumeMounts:
            {{- include "execpool.volumeMount" . | nindent 12 }}
*/}}
{{- define "execpool.volumeMount" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
- {name: execpool-socket, mountPath: {{ quote $s.dir }}, readOnly: true}
{{- end -}}

{{/*
Where the app finds the pool:

          env:
            {{- include "execpool.env" . | nindent 12 }}
*/}}
{{- define "execpool.env" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- $app := $s.values.app -}}
- name: EXECPOOL_DIR
  value: {{ quote $s.dir }}
- name: EXECPOOL
  value: {{ quote $app.client }}
{{- if $app.urlVariable }}
- name: {{ $app.urlVariable }}
  value: {{ include "execpool.appUrl" $s | replace "$(" "$$(" | quote }}
{{- end }}
{{- end -}}

{{- define "execpool.appUrl" -}}
{{- $app := .values.app -}}
{{- if $app.url -}}
  {{- $app.url -}}
{{- else if not .upstreams -}}
  {{- fail "app.url is empty, and there are no upstreams in the values to make it from: set it, such as postgresql://app@/app?host=/run/execpool, or app.urlVariable to nothing." -}}
{{- else -}}
  {{- $first := first .upstreams -}}
  {{- if eq $first.name "*" -}}
    {{- fail "app.url is empty, and upstreams[0] takes any name, so nobody here knows which database the app wants: set it, such as postgresql://app@/orders?host=/run/execpool" -}}
  {{- end -}}
  {{- if not $first.user -}}
    {{- fail "app.url is empty, and upstreams[0].url names no user, so nobody here knows as whom the app connects: write postgresql://USER@host/database, or set app.url." -}}
  {{- end -}}
  {{- printf "%s://%s@/%s?host=%s" $app.scheme $first.user $first.name .dir -}}
  {{- if ne .port "5432" -}}&port={{ .port }}{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The app's liveness probe. With reactor.restart: liveness it asks the sidecar, whose answer is bad when
the app is to be restarted; else it is the one that the chart's own values have (app.livenessProbe
names where), or none:

          {{- include "execpool.livenessProbe" . | nindent 10 }}
*/}}
{{- define "execpool.livenessProbe" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- $root := . -}}
{{- if kindIs "slice" . -}}{{- $root = first . -}}{{- end -}}
{{- $where := $s.values.app.livenessProbe -}}
{{- $own := $root.Values -}}
{{- range splitList "." $where -}}
  {{- if kindIs "map" $own -}}{{- $own = index $own . -}}{{- else -}}{{- $own = dict -}}{{- end -}}
{{- end -}}
{{- if ne $s.restart "liveness" -}}
  {{- with $own -}}
livenessProbe:
  {{- toYaml . | nindent 2 }}
  {{- end -}}
{{- else -}}
  {{- with $own -}}
    {{- include "execpool.check.appProbe" (list $s $where .) -}}
  {{- end -}}
livenessProbe:
  httpGet: {path: /livez/app, port: {{ $s.http }}}
  {{- /* An app that takes long to start is asked by the sidecar no sooner than it was by the kubelet. */}}
  {{- with $own }}
  {{- range $field := list "initialDelaySeconds" "terminationGracePeriodSeconds" }}
  {{- with index $own $field }}
  {{ $field }}: {{ int64 . }}
  {{- end }}
  {{- end }}
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
{{- end -}}
{{- end -}}

{{/* The app has one liveness probe only: its own must be asked by the sidecar on its behalf. */}}
{{- define "execpool.check.appProbe" -}}
{{- $asked := dig "app_probe" "" ((first .).values.reactor | default dict) -}}
{{- $where := index . 1 -}}
{{- $own := last . -}}
{{- $wanted := "" -}}
{{- $why := "" -}}
{{- with $own.httpGet -}}
  {{- $wanted = printf ":%s%s" (include "execpool.scalar" .port) (.path | default "/") -}}
  {{- if or (eq (.scheme | default "HTTP") "HTTPS") .httpHeaders -}}
    {{- $wanted = printf "tcp://127.0.0.1:%s" (include "execpool.scalar" .port) -}}
    {{- $why = " The sidecar asks without TLS and without headers of yours, so that of such a probe only the connection can be tried." -}}
  {{- end -}}
{{- end -}}
{{- with $own.tcpSocket -}}{{- $wanted = printf "tcp://127.0.0.1:%s" (include "execpool.scalar" .port) -}}{{- end -}}
{{- /* The kubelet looks up a port by its name, and the sidecar can't. */ -}}
{{- $called := regexFind ":[^:/]*[a-z][^:/]*(/|$)" (trimPrefix "tcp:" $wanted) | trimAll ":/" -}}
{{- if $called -}}
  {{- $wanted = replace (printf ":%s" $called) ":PORT" $wanted -}}
  {{- $why = printf " PORT is the number of the port that is called %q.%s" $called $why -}}
{{- end -}}
{{- if not $wanted -}}
  {{- if not $asked -}}
    {{- fail (printf "reactor.restart: liveness puts a liveness probe of the sidecar's port on the app, but %s has one already, which is neither httpGet nor tcpSocket. A container has one liveness probe: choose reactor.restart: exit-code, or give the app an HTTP probe and name that in reactor.app_probe." $where) -}}
  {{- end -}}
{{- else if not $asked -}}
  {{- fail (printf "reactor.restart: liveness puts a liveness probe of the sidecar's port on the app, but %s has one already. A container has one: let the sidecar ask the app's on its behalf, with  reactor.app_probe: %q%s" $where $wanted (ternary (printf ".%s" $why) "" (ne $why ""))) -}}
{{- else if not (or (hasSuffix $wanted $asked) $called) -}}
  {{- fail (printf "reactor.app_probe is %q, but the app's own probe in %s is %q: they should be the same.%s" $asked $where $wanted $why) -}}
{{- end -}}
{{- if and $asked (gt (int64 ($own.timeoutSeconds | default 1)) 1) -}}
  {{- fail (printf "%s.timeoutSeconds is %d, but the sidecar waits 900 ms for the app's own probe: an app that takes longer would be restarted for nothing. Set it to 1 if the app answers in time, or choose reactor.restart: exit-code, with which the app keeps its probe." $where (int64 $own.timeoutSeconds)) -}}
{{- end -}}
{{- end -}}

{{/* What to look at next, for the chart's NOTES.txt. */}}
{{- define "execpool.notes" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- $root := . -}}
{{- if kindIs "slice" . -}}{{- $root = first . -}}{{- end -}}
{{- $in := printf "kubectl -n %s" $root.Release.Namespace -}}
execpool is in the pod, at {{ $s.dir }}/.s.PGSQL.{{ $s.port }}, with a budget of {{ dig "size" 20 ($s.values.budget | default dict) | int64 }} + {{ dig "overflow" 10 ($s.values.budget | default dict) | int64 }} connections per pod.
  What it holds now:           {{ $in }} exec POD -c execpool -- /execpool status
  Whether all of it works:     {{ $in }} exec POD -c execpool -- /execpool doctor
  What happened:               {{ $in }} logs POD -c execpool
{{- if eq $s.kubernetes "on" }}
  What it says of itself:      {{ $in }} get pod POD -o jsonpath='{.metadata.annotations}'
                               {{ $in }} events --for pod/POD
{{- else }}
Its reactor has no access to Kubernetes: no annotation, no condition, no Event. To give it that, install the
chart execpool, and set serviceAccountName.
{{- end }}
{{- if eq $s.restart "off" }}
A pod that stays without connections is cleaned up, and not restarted: docs/platform-engineers.md of the project
says which reactor.restart to choose.
{{- end }}
{{- end -}}
