{{/* Written by tests/charts, from the schema: the names of values by path. */}}
{{- define "example.known" -}}
{
  "": ["args","autoscaling","command","env","execpool","image","job","livenessProbe","platform","podAnnotations","podDisruptionBudget","podLabels","readinessProbe","replicaCount","resources","runAsUser","service"],
  "autoscaling": ["enabled","maxReplicas","minReplicas","targetCPUUtilizationPercentage"],
  "image": ["pullPolicy","repository","tag"],
  "job": ["args","enabled"],
  "podDisruptionBudget": ["enabled","minAvailable"],
  "service": ["enabled","port"]
}
{{- end -}}
