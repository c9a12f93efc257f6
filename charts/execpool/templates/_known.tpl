{{/* Written by tests/charts, from the schema: the names of values by path. */}}
{{- define "execpoolPlatform.known" -}}
{
  "": ["acceptNamespaceWidePatch","admissionPolicy","dashboards","fullnameOverride","networkPolicy","podMonitor","prometheusRule","reactor","serviceAccount"],
  "admissionPolicy": ["enabled"],
  "dashboards": ["annotations","enabled","label","labelValue","namespace"],
  "networkPolicy": ["egress","enabled","ingress","metricsFrom","metricsPort","podSelector"],
  "networkPolicy.egress": ["api","apiPorts","databasePort","databases","dns","enabled","extra"],
  "podMonitor": ["enabled","interval","labels","metricRelabelings","relabelings","selector"],
  "prometheusRule": ["enabled","labels","namespace"],
  "reactor": ["condition","kubernetes","owners","restart"],
  "reactor.owners[]": ["kind","name"],
  "serviceAccount": ["annotations","create","name"]
}
{{- end -}}
