{{/* Written by tests/charts, from execpool's table of knobs. */}}
{{- define "execpool.sections" -}}
budget cleanup control errors execution exhaustion hold listen log maintenance pool reactor session shutdown telemetry
{{- end -}}

{{- define "execpool.shapes" -}}
{
  "listen.dir": {"pattern":"^/","takes":"an absolute path"},
  "listen.mode": {"pattern":"^(0o)?0?[67][0-7]{2}$","takes":"permissions in octal, such as 0660, which let the owner read and write (quote it if it begins with 0o)"},
  "listen.allow_uids": {"pattern":"^(any|[0-9]+( *, *[0-9]+)*)$","takes":"any, or one or more numbers of users"},
  "listen.tcp": {"pattern":"^(off|(127[.][0-9.]+|localhost|\\[::1\\]):[0-9]+)$","takes":"off or an address of the loopback such as 127.0.0.1:6432, [::1]:6432 or localhost:6432: at any other, whoever is on the network could use the server's credentials"},
  "listen.tcp_password_file": {"pattern":"^/","takes":"an absolute path"},
  "control.allow_uids": {"pattern":"^(any|[0-9]+( *, *[0-9]+)*)$","takes":"any, or one or more numbers of users"},
  "pool.timeout": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "pool.notice_after": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "pool.recycle": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1ms"},
  "pool.idle_timeout": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1ms"},
  "pool.ping_after": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "execution.max_duration": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1s"},
  "execution.idle_timeout": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "execution.tombstone": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "execution.grace": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "hold.grace": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "session.idle_in_transaction.notice": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1ms"},
  "session.idle_in_transaction.end": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1ms"},
  "session.transaction.notice": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1ms"},
  "session.transaction.end": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1ms"},
  "session.leak_after": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1ms"},
  "cleanup.idle_in_transaction": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "exhaustion.warning": {"pattern":"^(0[.][0-9]{1,3}|1([.]0{1,3})?)$","takes":"a share above 0 and at most 1, such as 0.8 or 0.925"},
  "exhaustion.wait": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1ms"},
  "exhaustion.after": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1ms"},
  "exhaustion.sustained_after": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1ms"},
  "reactor.restart_after": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "reactor.cooldown": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "reactor.app_probe": {"pattern":"^(http://|tcp://|:[0-9])","takes":"an HTTP probe such as http://127.0.0.1:8080/healthz or :8080/healthz, or a connection such as tcp://127.0.0.1:8080, on the loopback: the containers of a pod share it"},
  "maintenance.interval": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1s"},
  "telemetry.listen": {"pattern":"^(off|([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]+)$","takes":"off or an IP address with a port, such as [::]:9464 or 127.0.0.1:9464"},
  "telemetry.status_log": {"pattern":"^(off|([0-9]+(ms|s|m|h|d))+)$","takes":"off or a duration with its unit, such as 20s or 1m30s, of at least 1s"},
  "shutdown.grace": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s"},
  "log.level": {"pattern":"(?i)(off|error|warn|info|debug|trace)","takes":"a level (error, warn, info, debug, trace, off) or a filter such as info,execpool=debug"},
  "upstreams[].url": {"pattern":"^postgres(ql)?://","takes":"a URL such as postgresql://user@host:5432/database"},
  "upstreams[].password_file": {"pattern":"^/","takes":"an absolute path"},
  "upstreams[].connect_timeout": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1ms"},
  "upstreams[].keepalive": {"pattern":"^([0-9]+(ms|s|m|h|d))+$","takes":"a duration with its unit, such as 250ms, 20s or 1m30s, of at least 1s"}
}
{{- end -}}
