{{/*
The sidecar, an entry for initContainers. Nothing where shutdown.mode is plain:

      initContainers:
        {{- include "execpool.sidecar" . | nindent 8 }}
*/}}
{{- define "execpool.sidecar" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- if eq $s.mode "sidecar" -}}
{{- include "execpool.theContainer" (list . $s) -}}
{{- end -}}
{{- end -}}

{{/*
The same as a plain container, an entry for containers, for clusters before 1.29. Nothing unless
shutdown.mode is plain. The first one is started first:

      containers:
        {{- include "execpool.container" . | nindent 8 }}
        - name: app
*/}}
{{- define "execpool.container" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- if eq $s.mode "plain" -}}
{{- include "execpool.theContainer" (list . $s) -}}
{{- end -}}
{{- end -}}

{{- define "execpool.theContainer" -}}
{{- $root := first . -}}
{{- if kindIs "slice" $root -}}{{- $root = first $root -}}{{- end -}}
{{- $s := last . -}}
{{- $v := $s.values -}}
{{- include "execpool.check.extraEnv" $s -}}
- name: execpool
  image: {{ include "execpool.image" $v.image | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  args: [run]
  {{- if eq $s.mode "sidecar" }}
  restartPolicy: Always
  {{- end }}
  {{- if eq $s.restart "exit-code" }}
  {{- if eq $s.mode "plain" }}
  restartPolicy: Always
  {{- end }}
  restartPolicyRules:
    - action: RestartAllContainers
      exitCodes: {operator: In, values: [88]}
  {{- end }}
  env:
    {{- include "execpool.environment" $s | trim | nindent 4 }}
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: execpool, containerPort: {{ $s.http }}, protocol: TCP}
  startupProbe:
    httpGet: {path: /startupz, port: {{ $s.http }}}
    periodSeconds: 1
    timeoutSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet: {path: /readyz, port: {{ $s.http }}}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 2
  livenessProbe:
    httpGet: {path: /healthz, port: {{ $s.http }}}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  # Why it ended, for kubectl describe.
  terminationMessagePolicy: FallbackToLogsOnError
  lifecycle:
    preStop:
      exec: {command: [/execpool, drain]}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ int64 $v.runAsUser }}
    runAsGroup: {{ int64 $v.runAsUser }}
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  {{- with $v.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: execpool-socket, mountPath: {{ quote $s.dir }}}
    {{- if eq $s.kubernetes "on" }}
    - {name: execpool-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- end }}
    {{- if include "execpool.files" $s }}
    - {name: execpool-secrets, mountPath: /var/run/secrets/execpool, readOnly: true}
    {{- end }}
    {{- if $v.configMap }}
    - {name: execpool-config, mountPath: /etc/execpool, readOnly: true}
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "execpool.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{/* The files of the upstreams, as sources of a projected volume. */}}
{{- define "execpool.files" -}}
{{- range .upstreams -}}
{{- range .files }}
- {{ toYaml . | nindent 2 | trim }}
{{- end -}}
{{- end -}}
{{- end -}}
