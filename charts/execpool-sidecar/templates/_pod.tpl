{{/*
What the sidecar needs of the pod, for the pod's spec: its grace period, for the socket its groups,
and its service account, of which no container gets a token but the sidecar, where that has access
to Kubernetes:

    spec:
      {{- include "execpool.podSpec" . | nindent 6 }}
*/}}
{{- define "execpool.podSpec" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- $v := $s.values -}}
terminationGracePeriodSeconds: {{ int64 $v.terminationGracePeriodSeconds }}
{{- if $v.serviceAccountName }}
serviceAccountName: {{ quote $v.serviceAccountName }}
{{- end }}
automountServiceAccountToken: false
{{- with include "execpool.podSecurity" $v | fromJson }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The chart's own security context for the pod, with the group by which the app reaches the socket, as JSON. */}}
{{- define "execpool.podSecurity" -}}
{{- $context := .podSecurityContext | default dict -}}
{{- $group := int64 .socket.group -}}
{{- if eq .socket.access "fsGroup" -}}
  {{- if ne (dig "fsGroup" $group $context | int64) $group -}}
    {{- fail (printf "podSecurityContext.fsGroup is %d, but socket.access: fsGroup gives the pod's volumes to socket.group %d, and a pod has one such group: set socket.group to yours, or choose socket.access: group." (int64 $context.fsGroup) $group) -}}
  {{- end -}}
  {{- $context = merge (dict "fsGroup" $group) $context (dict "fsGroupChangePolicy" "OnRootMismatch") -}}
{{- else if eq .socket.access "group" -}}
  {{- $groups := list -}}
  {{- range $context.supplementalGroups -}}{{- $groups = append $groups (int64 .) -}}{{- end -}}
  {{- $context = merge (dict "supplementalGroups" (append $groups $group | uniq)) $context -}}
{{- end -}}
{{- toJson $context -}}
{{- end -}}

{{/*
The volumes: the socket's directory, which lives in memory and dies with the pod, and what the
sidecar reads:

      volumes:
        {{- include "execpool.volumes" . | nindent 8 }}
*/}}
{{- define "execpool.volumes" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- $v := $s.values -}}
- name: execpool-socket
  emptyDir: {medium: Memory, sizeLimit: {{ $v.socket.sizeLimit }}}
{{- if eq $s.kubernetes "on" }}
- name: execpool-token
  projected:
    defaultMode: 292 # 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]
{{- end }}
{{- with include "execpool.files" $s }}
- name: execpool-secrets
  projected:
    defaultMode: 292 # 0444
    sources:
      {{- trim . | nindent 6 }}
{{- end }}
{{- if $v.configMap }}
- name: execpool-config
  configMap: {name: {{ quote $v.configMap }}}
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Pods become ready only while the pool is available, if that was chosen:

    spec:
      {{- include "execpool.readinessGates" . | nindent 6 }}
*/}}
{{- define "execpool.readinessGates" -}}
{{- $s := include "execpool.settings" . | fromJson -}}
{{- if $s.values.readinessGate.enabled -}}
readinessGates:
  - conditionType: execpool.dev/PoolAvailable
{{- end -}}
{{- end -}}
