{{- define "execpoolPlatform.check" -}}
{{- $at := ternary "" .Chart.Name .Chart.IsRoot -}}
{{- with include "execpoolPlatform.unknown" (dict "known" (include "execpoolPlatform.known" . | fromJson) "root" $at "path" "" "shown" $at "values" .Values) -}}
  {{- include "execpoolPlatform.unknown.fail" . -}}
{{- end -}}
{{- $restart := include "execpoolPlatform.restart" . -}}
{{- if include "execpoolPlatform.isOn" . -}}
  {{- if not .Values.serviceAccount.name -}}
    {{- fail "serviceAccount.name is empty: the rights must be somebody's. Name the service account of the pods; not \"default\", which is every pod's that names none." -}}
  {{- else if eq .Values.serviceAccount.name "default" -}}
    {{- fail "serviceAccount.name is \"default\", which is every pod's that names none: give the pods with a sidecar one of their own." -}}
  {{- end -}}
  {{- if and (not .Values.admissionPolicy.enabled) (not .Values.acceptNamespaceWidePatch) -}}
    {{- fail "admissionPolicy.enabled is false: a sidecar's token could then patch every pod of the namespace, and through a pod's image run anything there. Leave the policy on, or say acceptNamespaceWidePatch: true." -}}
  {{- end -}}
  {{- if and .Values.admissionPolicy.enabled (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) -}}
    {{- fail (printf "Kubernetes %s has no ValidatingAdmissionPolicy (1.30 and newer do), so a sidecar's token could patch every pod of the namespace. Say admissionPolicy.enabled: false and acceptNamespaceWidePatch: true to have it so, or reactor.kubernetes: off for no rights at all. If the cluster is newer: helm template asks none, and is told by  --kube-version 1.36" .Capabilities.KubeVersion.Version) -}}
  {{- end -}}
  {{- if and (eq $restart "rollout") (not .Values.reactor.owners) -}}
    {{- fail "reactor.restart: rollout needs reactor.owners: which owners may be stamped? Such as  reactor.owners: [{kind: Deployment, name: agents}]" -}}
  {{- end -}}
{{- else if has $restart (list "evict" "rollout") -}}
  {{- fail (printf "reactor.restart: %s asks the Kubernetes API, but reactor.kubernetes is off: turn that on, or choose liveness or exit-code." $restart) -}}
{{- end -}}
{{- if and .Values.reactor.owners (ne $restart "rollout") -}}
  {{- fail (printf "reactor.owners are for reactor.restart: rollout, but that is %s: a right that is not needed is not given. Take them out (where values are reused, with  --set-json 'reactor.owners=[]')." $restart) -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.podSelector) -}}
  {{- fail "networkPolicy.podSelector is empty, which would cut off every pod of the namespace: name the pods with a sidecar, such as  {matchLabels: {app.kubernetes.io/name: agents}}" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.networkPolicy.egress.enabled (not .Values.networkPolicy.egress.databases) -}}
  {{- fail "networkPolicy.egress.databases is empty, so that no sidecar could reach its database: name them, such as  [{ipBlock: {cidr: 10.0.0.0/8}}]" -}}
{{- end -}}
{{- end -}}
