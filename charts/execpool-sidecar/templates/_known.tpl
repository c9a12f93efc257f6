{{/* Written by tests/charts, from the schema: the names of values by path. */}}
{{- define "execpool.known" -}}
{
  "": ["app","budget","capacity","cleanup","configMap","control","errors","execution","exhaustion","extraEnv","extraEnvFrom","extraVolumeMounts","extraVolumes","hold","image","listen","log","maintenance","otel","podSecurityContext","pool","reactor","readinessGate","resources","restartPolicyRules","runAsUser","serviceAccountName","session","shutdown","socket","telemetry","terminationGracePeriodSeconds","upstreams"],
  "app": ["client","livenessProbe","scheme","url","urlVariable"],
  "budget": ["overflow","size","warm"],
  "capacity": ["maxConnections","maxSurge","replicas","reserved"],
  "cleanup": ["idle_in_transaction"],
  "control": ["admin","allow_uids"],
  "errors": ["holders"],
  "execution": ["grace","idle_timeout","max_duration","tombstone","untagged"],
  "exhaustion": ["after","sustained_after","wait","warning"],
  "hold": ["grace"],
  "image": ["digest","pullPolicy","repository","tag"],
  "listen": ["allow_uids","dir","group","max_sessions","mode","port","tcp","tcp_password_file"],
  "log": ["format","level"],
  "maintenance": ["interval"],
  "otel": ["endpoint","resourceAttributes"],
  "pool": ["idle_timeout","mode","notice_after","overflow","ping_after","pre_ping","recycle","reset","size","timeout"],
  "reactor": ["app_probe","cleanup","condition","cooldown","dry_run","kubernetes","max_restarts_per_hour","restart","restart_after"],
  "readinessGate": ["enabled"],
  "session": ["idle_in_transaction","leak_after","reclaim_leaks","transaction"],
  "session.idle_in_transaction": ["end","notice"],
  "session.transaction": ["end","notice"],
  "shutdown": ["grace","mode"],
  "socket": ["access","group","sizeLimit"],
  "telemetry": ["listen","status_log","top_executions","traces"],
  "upstreams[]": ["any_user","ca","connect_timeout","keepalive","kind","name","passwordSecret","password_command","password_file","pool","url","urlSecret"],
  "upstreams[].ca": ["configMap","key","secret"],
  "upstreams[].passwordSecret": ["key","name"],
  "upstreams[].pool": ["idle_timeout","mode","notice_after","overflow","ping_after","pre_ping","recycle","reset","size","timeout"],
  "upstreams[].urlSecret": ["key","name"]
}
{{- end -}}
