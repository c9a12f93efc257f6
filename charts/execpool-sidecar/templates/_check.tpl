{{/* Values that can't work fail here, each with what to do about it. Takes the context and the settings. */}}
{{- define "execpool.check" -}}
{{- $root := first . -}}
{{- $s := last . -}}
{{- $v := $s.values -}}
{{- $version := $root.Capabilities.KubeVersion.Version -}}

{{- if and (eq $s.mode "sidecar") (semverCompare "<1.29.0-0" $version) -}}
  {{- fail (printf "Kubernetes %s has no native sidecars (1.29 and newer do). Set shutdown.mode: plain, and include \"execpool.container\" among the pod's containers.%s" $version (include "execpool.check.version" .)) -}}
{{- end -}}
{{- if eq $s.http "off" -}}
  {{- fail "telemetry.listen is off, but the sidecar's probes need that port. It is read-only; give it another address instead, such as \"[::]:9465\"." -}}
{{- end -}}
{{- if regexMatch "^(127[.]|\\[::1\\]|localhost)" (dig "listen" "" ($v.telemetry | default dict) | include "execpool.scalar") -}}
  {{- fail (printf "telemetry.listen is %q, where only the pod's own containers reach it: the kubelet asks the sidecar's probes at the pod's address, and would restart it for ever. Leave it out, or choose another port, such as \"[::]:9465\"." $v.telemetry.listen) -}}
{{- end -}}
{{- if not (or $v.image.tag $v.image.digest) -}}
  {{- fail "image.tag is empty, and so is image.digest: which image is it? Name one of them, such as  image: {tag: \"0.1.0\"}" -}}
{{- end -}}
{{- if and $v.otel.endpoint (not (regexMatch "^https?://[^/]" $v.otel.endpoint)) -}}
  {{- fail (printf "otel.endpoint is %q, but takes a URL with its scheme, such as http://collector.monitoring.svc:4317 (without one, https would be meant)." $v.otel.endpoint) -}}
{{- end -}}
{{- include "execpool.check.budget" $s -}}
{{- include "execpool.check.upstreams" $s -}}
{{- include "execpool.check.names" $s -}}
{{- include "execpool.check.reactor" (list $version $s) -}}
{{- include "execpool.check.socket" $s -}}
{{- include "execpool.check.capacity" (list $root $s) -}}

{{- with dig "grace" "" ($v.shutdown | default dict) -}}
  {{- if ge (include "execpool.seconds" . | int64) (int64 $v.terminationGracePeriodSeconds) -}}
    {{- fail (printf "shutdown.grace %s is not shorter than terminationGracePeriodSeconds %d: Kubernetes would kill execpool first. Leave it out: it then follows the pod's grace period (here %s)." . (int64 $v.terminationGracePeriodSeconds) $s.shutdownGrace) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "execpool.check.budget" -}}
{{- $budget := .values.budget | default dict -}}
{{- $size := dig "size" 20 $budget | int64 -}}
{{- $warm := dig "warm" 0 $budget | int64 -}}
{{- if gt $warm $size -}}
  {{- fail (printf "budget.warm %d is more than budget.size %d: no more connections can wait than may be open. Lower the one or raise the other." $warm $size) -}}
{{- end -}}
{{- end -}}

{{/* The app names a database, and each may be one upstream's only. */}}
{{- define "execpool.check.names" -}}
{{- $seen := dict -}}
{{- range $index, $one := .upstreams -}}
  {{- if hasKey $seen $one.name -}}
    {{- fail (printf "upstreams[%d] and upstreams[%d] are both called %q, which is what an app names as its database: give one of them another name. It may differ from the database's name in the url." (int (get $seen $one.name)) $index $one.name) -}}
  {{- end -}}
  {{- $_ := set $seen $one.name $index -}}
{{- end -}}
{{- end -}}

{{/* helm template asks no cluster, and takes a version that its makers chose. */}}
{{- define "execpool.check.version" -}}
{{- printf " If the cluster is newer: helm template asks none, and is told by  --kube-version 1.36" -}}
{{- end -}}

{{- define "execpool.check.upstreams" -}}
{{- $v := .values -}}
{{- if and (not $v.upstreams) (not $v.configMap) -}}
  {{- fail "upstreams is empty: which database is the pool for? Such as  upstreams: [{url: \"postgresql://app@db.internal:5432/app\", passwordSecret: {name: db, key: password}}]" -}}
{{- end -}}
{{- /* PGHOST is where a url says nothing, and may come from anywhere. */ -}}
{{- $elsewhere := not (empty $v.extraEnvFrom) -}}
{{- range $v.extraEnv -}}{{- if eq .name "PGHOST" -}}{{- $elsewhere = true -}}{{- end -}}{{- end -}}
{{- range $index, $one := $v.upstreams -}}
  {{- $where := printf "upstreams[%d]" $index -}}
  {{- if and $one.url $one.urlSecret -}}
    {{- fail (printf "%s has both url and urlSecret: keep one." $where) -}}
  {{- else if not (or $one.url $one.urlSecret) -}}
    {{- fail (printf "%s needs a url, such as postgresql://app@db.internal:5432/app, or a urlSecret {name, key} that has it." $where) -}}
  {{- end -}}
  {{- if or (regexMatch "^[a-z]+://[^@/?]*:[^@/?]*@" ($one.url | default "")) (regexMatch "[?&]password=" ($one.url | default "")) -}}
    {{- fail (printf "%s.url has a password in it, and values are no place for one. Put it into a Secret and name that:  passwordSecret: {name: db, key: password}" $where) -}}
  {{- end -}}
  {{- with $one.url -}}
    {{- include "execpool.check.url" (list (printf "%s.url" $where) . $elsewhere $.dir) -}}
  {{- end -}}
  {{- if and $one.passwordSecret (or $one.password_file $one.password_command) -}}
    {{- fail (printf "%s has a passwordSecret and a password_file or password_command: keep one." $where) -}}
  {{- end -}}
  {{- if and $one.urlSecret (not $one.name) -}}
    {{- fail (printf "%s takes its url from a Secret, so nobody here can read the database's name in it: give it a name, which is what the app names as its database." $where) -}}
  {{- end -}}
  {{- with $one.ca -}}
    {{- if $one.urlSecret -}}
      {{- fail (printf "%s.ca can't be added to a url that is in a Secret: mount the certificate with extraVolumes and extraVolumeMounts, and write sslrootcert=… into that url." $where) -}}
    {{- else if contains "sslrootcert=" $one.url -}}
      {{- fail (printf "%s has ca and, in its url, sslrootcert: keep one." $where) -}}
    {{- else if eq (empty .secret) (empty .configMap) -}}
      {{- fail (printf "%s.ca needs either secret or configMap: the name of what holds the certificate." $where) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "execpool.check.url" -}}
{{- $where := first . -}}
{{- $url := index . 1 -}}
{{- $hosts := regexReplaceAll "^[a-z]+://(?:[^@/?]*@)?([^/?]*).*$" $url "${1}" -}}
{{- $parameters := dict -}}
{{- range regexFindAll "[?&][a-z_]+=[^&]*" $url -1 -}}
  {{- $_ := set $parameters (regexReplaceAll "^.(.*?)=.*$" . "${1}") (regexReplaceAll "^.*?=" . "" | replace "%2F" "/" | replace "%2f" "/") -}}
{{- end -}}
{{- if has (last .) (list ($parameters.host | default "" | trimSuffix "/") ($hosts | replace "%2F" "/" | replace "%2f" "/")) -}}
  {{- fail (printf "%s leads to execpool's own socket: it is for the database itself, such as postgresql://app@db.internal:5432/app. What the app connects with is made of it." $where) -}}
{{- end -}}
{{- if not (or $hosts $parameters.host $parameters.hostaddr (index . 2)) -}}
  {{- fail (printf "%s names no host, and there is no database in the pod: write it behind the user, as in postgresql://app@db.internal:5432/app" $where) -}}
{{- end -}}
{{- if regexMatch "(^|,)([^,:\\[\\]]*|\\[[^\\]]*\\]):[^,]*[^0-9,]" $hosts -}}
  {{- fail (printf "%s has a port that is no number: %q. Such as db.internal:5432, and an address of IPv6 in brackets." $where $hosts) -}}
{{- end -}}
{{- $modes := list "disable" "allow" "prefer" "require" "verify-ca" "verify-full" -}}
{{- with $parameters.sslmode -}}
  {{- if not (has . $modes) -}}
    {{- fail (printf "%s has sslmode=%s, but there are: %s." $where . (join ", " $modes)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "execpool.check.reactor" -}}
{{- $version := first . -}}
{{- $s := last . -}}
{{- $v := $s.values -}}
{{- if and (eq $s.kubernetes "on") (not $v.serviceAccountName) -}}
  {{- fail "reactor.kubernetes is on, but serviceAccountName is not set: name the service account that the chart execpool gives its rights to." -}}
{{- end -}}
{{- if and (has $s.restart (list "evict" "rollout")) (ne $s.kubernetes "on") -}}
  {{- fail (printf "reactor.restart: %s asks the Kubernetes API, but the reactor has no access to it: set serviceAccountName (and leave reactor.kubernetes at auto), or choose liveness or exit-code." $s.restart) -}}
{{- end -}}
{{- $asked := dig "app_probe" "" ($v.reactor | default dict) -}}
{{- if eq (regexFind ":[0-9]+(/|$)" $asked | trimSuffix "/") (printf ":%s" $s.http) -}}
  {{- fail (printf "reactor.app_probe is %q, but port %s is the sidecar's own (telemetry.listen): name the app's." $asked $s.http) -}}
{{- end -}}
{{- if and $v.readinessGate.enabled (ne $s.kubernetes "on") -}}
  {{- fail "readinessGate.enabled: without the reactor nobody would ever set the condition execpool.dev/PoolAvailable, and no pod would become ready. Set serviceAccountName, or leave the gate off." -}}
{{- end -}}
{{- if and $v.readinessGate.enabled (ne $s.condition "on") -}}
  {{- fail "readinessGate.enabled: reactor.condition is off, so nobody would ever set the condition execpool.dev/PoolAvailable, and no pod would become ready. Turn one of the two round." -}}
{{- end -}}
{{- if and $v.readinessGate.enabled (eq $s.dryRun "on") -}}
  {{- fail "readinessGate.enabled: with reactor.dry_run nothing is written to the pod, so nobody would ever set the condition execpool.dev/PoolAvailable, and no pod would become ready. Leave the gate off for as long as it is a dry run." -}}
{{- end -}}
{{- if and (eq $s.restart "exit-code") (ne (include "execpool.hasRules" (list $version $v)) "yes") -}}
  {{- fail (printf "reactor.restart: exit-code needs restartPolicyRules with RestartAllContainers, which Kubernetes %s does not have by default (1.36 and newer do). Choose reactor.restart: liveness, or, where the feature gate is on, set restartPolicyRules: always.%s" $version (include "execpool.check.version" .)) -}}
{{- end -}}
{{- end -}}

{{/* What is set twice is whose? Some API servers take the last, and server-side apply takes neither. */}}
{{- define "execpool.check.extraEnv" -}}
{{- $own := list -}}
{{- range include "execpool.environment" . | fromYamlArray -}}{{- $own = append $own .name -}}{{- end -}}
{{- range .values.extraEnv -}}
  {{- if has .name $own -}}
    {{- fail (printf "extraEnv has %s, which the sidecar has by the values already: change the value instead, EXECPOOL_BUDGET__SIZE being budget.size." .name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* "yes" where the cluster restarts all containers by an exit code. */}}
{{- define "execpool.hasRules" -}}
{{- $version := first . -}}
{{- $v := last . -}}
{{- if or (eq $v.restartPolicyRules "always") (and (eq $v.restartPolicyRules "auto") (semverCompare ">=1.36.0-0" $version)) -}}
yes
{{- end -}}
{{- end -}}

{{- define "execpool.check.socket" -}}
{{- $listen := .values.listen | default dict -}}
{{- if hasKey $listen "group" -}}
  {{- fail "listen.group: say socket.access: group and socket.group instead, so that the pod's security context fits to it." -}}
{{- end -}}
{{- if and (hasKey $listen "mode") (eq .values.socket.access "mode") (not (regexMatch "[67]$" (include "execpool.scalar" $listen.mode))) -}}
  {{- fail (printf "socket.access: mode lets every user in the pod connect, but listen.mode %q does not: leave listen.mode out, or choose socket.access: fsGroup." (include "execpool.scalar" $listen.mode)) -}}
{{- end -}}
{{- end -}}

{{/* (replicas + surge) × (size + overflow + upstreams) against max_connections, where that is named. */}}
{{- define "execpool.check.capacity" -}}
{{- $root := first . -}}
{{- $v := (last .).values -}}
{{- $capacity := $v.capacity -}}
{{- if $capacity.maxConnections -}}
  {{- $replicas := $capacity.replicas -}}
  {{- if not $replicas -}}
    {{- $scaling := $root.Values.autoscaling | default dict -}}
    {{- $replicas = ternary $scaling.maxReplicas $root.Values.replicaCount (and (not (empty $scaling.enabled)) (not (empty $scaling.maxReplicas))) -}}
  {{- end -}}
  {{- if not $replicas -}}
    {{- fail "capacity.maxConnections is set, but how many pods there may be is not: set capacity.replicas (autoscaling.maxReplicas and replicaCount are looked at as well)." -}}
  {{- end -}}
  {{- $replicas = int64 $replicas -}}
  {{- $surge := include "execpool.scalar" $capacity.maxSurge -}}
  {{- if hasSuffix "%" $surge -}}
    {{- $surge = div (add (mul $replicas (trimSuffix "%" $surge | int64)) 99) 100 -}}
  {{- end -}}
  {{- $surge = int64 $surge -}}
  {{- $size := dig "size" 20 ($v.budget | default dict) | int64 -}}
  {{- $overflow := dig "overflow" 10 ($v.budget | default dict) | int64 -}}
  {{- $monitors := len ($v.upstreams | default list) -}}
  {{- $needed := mul (add $replicas $surge) (add $size $overflow $monitors) -}}
  {{- $free := sub (int64 $capacity.maxConnections) (int64 $capacity.reserved) -}}
  {{- if le $free 0 -}}
    {{- fail (printf "capacity.reserved %d leaves nothing of capacity.maxConnections %d: it is what superusers and others need, 3 by default." (int64 $capacity.reserved) (int64 $capacity.maxConnections)) -}}
  {{- end -}}
  {{- if gt $needed $free -}}
    {{- $fitting := sub (div $free (add $replicas $surge)) (add $overflow $monitors) -}}
    {{- $advice := ternary (printf "Lower budget.size to %d" $fitting) "Lower budget.size and budget.overflow" (gt $fitting 0) -}}
    {{- fail (printf "%d pods, and %d more while they are replaced, may each open %d + %d + %d connections (budget.size, budget.overflow, one per upstream): %d, but the database takes %d (capacity.maxConnections %d, less %d reserved). %s, run fewer pods, or raise max_connections." $replicas $surge $size $overflow $monitors $needed $free (int64 $capacity.maxConnections) (int64 $capacity.reserved) $advice) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
