"""execpool / fleet: all pods, by workload, from what the recording rules keep."""

from parts import ORANGE, RED, YELLOW, dashboard, lines, stat, table

WORKLOAD = "{{namespace}}/{{workload}}"
TO_POD = ("/d/execpool-pod?${__url_time_range}&${datasource:queryparam}"
          "&var-namespace=${__data.fields.namespace}&var-workload=${__data.fields.workload}"
          "&var-pod=${__data.fields.pod}")


def percentiles(bucket):
    """p50 and p99 of a recorded histogram, of each workload."""
    return [
        (f"histogram_quantile({share}, workload_le:{bucket}_bucket:rate5m{{@w}})", f"p{round(share * 100)} {WORKLOAD}")
        for share in (0.5, 0.99)
    ]


def exhausted(at_least):
    return f"sum(execpool_exhaustion_state{{@}} >= bool {at_least})"


IS_ANYTHING_WRONG = [
    stat("Alerts firing (number)",
         "Alerts of execpool in these namespaces. Worry when it is not 0: each alert links to its runbook.",
         "short", 'count(ALERTS{namespace=~"$namespace", alertname=~"Execpool.*", alertstate="firing"}) or vector(0)',
         [(1, RED)]),
    stat("Pods that are exhausted (number)",
         "Their sessions wait for over 5 s, or in vain. Worry when it is not 0 for minutes.",
         "short", exhausted(2), [(1, RED)], runbook="ExecpoolBudgetExhausted"),
    stat("Pods with a warning (number)",
         "Over 80 % in use for 30 s, exhausted ones among them. Most of a fleet: raise budgets, or have more pods.",
         "short", exhausted(1), [(1, YELLOW)], runbook="ExecpoolPoolSaturated"),
    stat("Oldest wait for a connection (s)",
         "In the whole fleet. Clients are told at 5 s, and get an error at 20 s by default.",
         "s", "max(execpool_budget_oldest_wait_seconds{@})", [(1, YELLOW), (5, RED)], runbook="ExecpoolWaitP99High"),
    stat("Waits that timed out (per second)",
         "Errors that apps get. Worry when it is not 0.",
         "cps", "sum(workload:db_client_connection_timeouts:rate5m{@w})", [(0.01, RED)],
         runbook="ExecpoolCheckoutTimeouts"),
    stat("Pods limited by the database (number)",
         "The database gives them less than their budget: budgets together are more than max_connections.",
         "short", "sum(execpool_budget_effective{@} < bool execpool_budget_limit{@})", [(1, ORANGE)],
         runbook="ExecpoolLimitedByDatabase"),
    stat("Sidecars that are down (number)",
         "Prometheus does not reach them. Worry when it lasts for longer than a rollout.",
         "short", 'sum(up{@, container="execpool"} == bool 0)', [(1, RED)], runbook="ExecpoolSidecarDown",
         none="not scraped"),
    stat("Pods that report (number)",
         "How many execpools there are. Fewer than pods: see the runbook.",
         "short", "count(execpool_budget_limit{@})", runbook="ExecpoolMetricsAbsent", none="none"),
    stat("Failed connects (per second)",
         "Connections to databases that failed, in reaching them or at the login.",
         "cps", 'sum(workload_phase_class:execpool_server_errors:rate5m{@w, phase=~"connect|auth"})',
         [(0.01, YELLOW), (1, RED)], runbook="ExecpoolServerConnectErrors"),
    stat("Leak suspects (% of all budgets)",
         "What sessions hold that ask nothing. Worry from a quarter on.",
         "percentunit", "sum(pod:execpool_session_leaks:outstanding{@}) / sum(execpool_budget_limit{@})",
         [(0.1, YELLOW), (0.25, ORANGE)], runbook="ExecpoolSessionLeak"),
    stat("Fullest memory of a container (%)",
         "Of all containers beside an execpool, from the kubelet.",
         "percentunit", "max(pod_container:container_memory_working_set_bytes:limit_ratio{@k})",
         [(0.8, YELLOW), (0.9, RED)], runbook="ExecpoolAppMemoryHigh", none="no limit"),
    stat("Cleanups and restarts (number)",
         "How often an execpool has cleaned up or had something restarted, over the time shown.",
         "short", 'sum(increase(execpool_reactor_actions_total{@, action=~"cleanup|restart", outcome="ok"}[$__range]))',
         [(1, YELLOW)], runbook="ExecpoolReactorActed", over_range=True),
    table("Which pods need a look?",
          """The twenty fullest pods, with what is wrong with them. Follow the name of a pod to its dashboard. Worry
          about red in more than one column.""",
          ("topk(20, pod:execpool_budget_used:ratio{@})", "Budget used", "percentunit", [(0.8, YELLOW), (0.9, ORANGE)]),
          ("max by (namespace, workload, pod) (execpool_exhaustion_state{@})"
           " and on (namespace, workload, pod) topk(20, pod:execpool_budget_used:ratio{@})",
           "Exhaustion (0–3)", "short", [(1, YELLOW), (2, RED)]),
          ("max by (namespace, workload, pod) (execpool_budget_oldest_wait_seconds{@})"
           " and on (namespace, workload, pod) topk(20, pod:execpool_budget_used:ratio{@})",
           "Oldest wait", "s", [(1, YELLOW), (5, RED)]),
          ("pod:execpool_checkout_held_seconds:active_ratio_rate5m{@}"
           " and on (namespace, workload, pod) topk(20, pod:execpool_budget_used:ratio{@})",
           "Hold efficiency", "percentunit", []),
          ("pod:execpool_session_leaks:outstanding{@}"
           " and on (namespace, workload, pod) topk(20, pod:execpool_budget_used:ratio{@})",
           "Leak suspects", "short", [(8, ORANGE)]),
          link=("execpool / pod", TO_POD), order_by="Budget used"),
]

SATURATION = [
    lines("How full are the budgets of each workload? (%)",
          "Used, of what its pods may have together. Over 80 % a single pod is full most of the time: scale out, or raise budgets.",
          "percentunit",
          ("workload:execpool_budget_used:sum{@w} / (workload:execpool_budget_limit:sum{@w} > 0)", WORKLOAD),
          levels=[(0.8, YELLOW), (0.9, RED)], runbook="ExecpoolPoolSaturated"),
    lines("The fullest ten pods (%)",
          "Used, of each one's limit. One that is full among others that are not: work is spread badly.",
          "percentunit", ("topk(10, pod:execpool_budget_used:ratio{@})", "{{namespace}}/{{pod}}"),
          levels=[(0.8, YELLOW), (0.9, RED)], runbook="ExecpoolPoolSaturated"),
    lines("Server connections of each workload (number)",
          "Open ones, used or not: what the databases see of it.",
          "short", ("workload:execpool_budget_open:sum{@w}", WORKLOAD), stack="normal"),
    lines("Pods by exhaustion state (number)",
          "How many are at least so far. Waves are load; a level line is a pod that needs help.",
          "short", (exhausted(1), "warning or worse"), (exhausted(2), "exhausted or worse"), (exhausted(3), "sustained"),
          runbook="ExecpoolBudgetExhausted"),
]

WAITING = [
    lines("How many wait for a connection? (sessions)",
          "Of each workload. Many short waits are healthy: look at the percentiles before you worry.",
          "short", ("workload:execpool_budget_waiting:sum{@w}", WORKLOAD)),
    lines("The ten oldest waits (s)",
          "By pod. Clients are told at 5 s, and get an error at 20 s by default.",
          "s", ("topk(10, max by (namespace, workload, pod) (execpool_budget_oldest_wait_seconds{@}))", "{{namespace}}/{{pod}}"),
          levels=[(5, YELLOW), (20, RED)], runbook="ExecpoolBudgetExhausted"),
    lines("Waits that timed out (per second)",
          "Each is an error that an app got. Worry when it does not go back to 0.",
          "cps", ("workload:db_client_connection_timeouts:rate5m{@w}", WORKLOAD), width=24,
          runbook="ExecpoolCheckoutTimeouts"),
]

PERCENTILES = [
    lines("How long do sessions wait for a connection? (s)",
          "p50 and p99 of the waits that got one, of each workload.",
          "s", *percentiles("db_client_connection_wait_time_seconds"), levels=[(5, RED)], runbook="ExecpoolWaitP99High"),
    lines("How long does it take to open a connection? (s)",
          "p50 and p99. Rises for all workloads of a database when that is slow.",
          "s", *percentiles("db_client_connection_create_time_seconds"), levels=[(1, YELLOW)]),
    lines("How long do operations take at the database? (s)",
          "p50 and p99. When it rises with the waits, the database is slow, not the pool small.",
          "s", *percentiles("db_client_operation_duration_seconds")),
    lines("How long is a connection held? (s)",
          "p50 and p99. Minutes are sessions that are kept open across a model's call.",
          "s", *percentiles("db_client_connection_use_time_seconds"), levels=[(60, YELLOW)]),
]

HOLD_EFFICIENCY = [
    lines("What goes on while connections are held? (% of the time held)",
          "All workloads together: active is work, the rest is held across something else, such as a model's call.",
          "percentunit",
          ("sum by (state) (workload_state:execpool_checkout_held_seconds:rate5m{@w})"
           " / on () group_left () (sum(workload_state:execpool_checkout_held_seconds:rate5m{@w}) > 0)", "{{state}}"),
          stack="normal", most=1),
    lines("Hold efficiency of each workload (%)",
          "Active, of the time held. The lowest one that also waits is where ending sessions before calls pays most.",
          "percentunit",
          ('sum by (namespace, workload) (workload_state:execpool_checkout_held_seconds:rate5m{@w, state="active"})'
           " / (sum by (namespace, workload) (workload_state:execpool_checkout_held_seconds:rate5m{@w}) > 0)", WORKLOAD),
          most=1, runbook="ExecpoolPoolSaturated"),
]

EXECUTIONS = [
    lines("How many executions are there? (number)",
          "That have not ended, of each workload. A line that only rises: they are begun and never ended.",
          "short", ("sum by (namespace, workload) (workload_state:execpool_execution_count:sum{@w})", WORKLOAD)),
    lines("Why do executions end? (per second)",
          "deleted and idle are healthy; hold_lost means that app processes die, deadline that runs take too long.",
          "cps", ("sum by (reason) (workload_reason:execpool_execution_ended:rate5m{@w})", "{{reason}}")),
    lines("What do sessions do? (number)",
          "Of all workloads. Worry when idle and idle in transaction outgrow active while some are waiting.",
          "short", ("sum by (state) (workload_state:execpool_session_count:sum{@w})", "{{state}}"), stack="normal", width=24),
]

FORGOTTEN = [
    lines("The ten pods with most leak suspects (sessions)",
          "They hold a connection and ask nothing. A level line is a client-side pool; a rising one a leak.",
          "short", ("topk(10, pod:execpool_session_leaks:outstanding{@})", "{{namespace}}/{{pod}}"),
          runbook="ExecpoolSessionLeak"),
    lines("The ten pods with the oldest open transaction (s)",
          "Sessions that ask nothing and hold locks. Worry from minutes on.",
          "s",
          ('topk(10, max by (namespace, workload, pod) (execpool_session_oldest_seconds{@, state="idle_in_transaction"}))',
           "{{namespace}}/{{pod}}"), levels=[(60, YELLOW), (300, RED)], runbook="ExecpoolIdleInTransaction"),
]

SERVER_ERRORS = [
    lines("Where do server connections fail? (per second)",
          "connect and auth: no connection can be had; reset and ping: lost at rest; relay: queries fail, or connections amid them.",
          "cps", ("sum by (phase) (workload_phase_class:execpool_server_errors:rate5m{@w})", "{{phase}}"),
          runbook="ExecpoolServerConnectErrors"),
    lines("With which class of SQLSTATE? (per second)",
          "08 connection, 28 login, 53 no connection left, 57 shut down or cancelled; 22, 23 and 42 are the apps' own statements.",
          "cps", ("sum by (phase, class) (workload_phase_class:execpool_server_errors:rate5m{@w})", "{{phase}} {{class}}")),
]

DATABASE = [
    lines("How many connections does each workload have at its database? (number)",
          "Of its pods together, against what the database allows. Worry when the sum of those that share one comes near max.",
          "short",
          ('sum by (namespace, workload) (execpool_database_connections{@, kind="ours"})', WORKLOAD),
          ('max by (namespace, workload) (execpool_database_connections{@, kind="max"})', f"max {WORKLOAD}"),
          dashed=["max"], runbook="ExecpoolLimitedByDatabase"),
    lines("How full is the database of each workload? (%)",
          "All connections, whoever has them, of max_connections. At 100 % it refuses.",
          "percentunit",
          ('max by (namespace, workload) (sum by (namespace, workload, pod) (execpool_database_connections{@, kind=~"ours|others"})'
           ' / sum by (namespace, workload, pod) (execpool_database_connections{@, kind="max"}))', WORKLOAD),
          levels=[(0.8, YELLOW), (0.95, RED)], most=1, runbook="ExecpoolLimitedByDatabase"),
]

REACTOR = [
    lines("What do reactors do? (per second)",
          "annotate, condition and event tell Kubernetes; cleanup and restart are remedies; refused: a guard was against it.",
          "cps",
          ("sum by (action, outcome) (rate(execpool_reactor_actions_total{@}[$__rate_interval]))", "{{action}} {{outcome}}"),
          runbook="ExecpoolReactorActed"),
    lines("What of it fails? (per second)",
          "annotate, condition and event: the Kubernetes API did not do it. restart: it was wanted, and a guard was against it, or it failed.",
          "cps",
          ('sum by (action, outcome) (rate(execpool_reactor_actions_total{@, outcome=~"error|refused"}[$__rate_interval]))',
           "{{action}} {{outcome}}"), runbook="ExecpoolKubernetesFailing"),
    lines("Cleanups and restarts of each workload (per second)",
          "Who needs help again and again: look at its dashboard.",
          "cps",
          ('sum by (namespace, workload) (rate(execpool_reactor_actions_total{@, action=~"cleanup|restart", outcome="ok"}[$__rate_interval]))',
           WORKLOAD), runbook="ExecpoolReactorActed"),
]

SIDECARS = [
    lines("How much CPU do the sidecars take? (cores)",
          "Of each workload together. It grows with transactions.",
          "short", ("sum by (namespace, workload) (rate(process_cpu_time_seconds_total{@}[$__rate_interval]))", WORKLOAD),
          stack="normal"),
    lines("The ten sidecars with most memory (bytes)",
          "Resident. Some ten megabytes, and 5 kB a session; worry when one rises and its sessions don't.",
          "bytes", ("topk(10, process_memory_usage_bytes{@})", "{{namespace}}/{{pod}}")),
    lines("Exports that failed, by why (per second)",
          "Data points and spans that a collector did not get. Worry when it lasts; pooling is not touched by it.",
          "cps",
          ('sum by (error_type) (rate(otel_sdk_exporter_metric_data_point_exported_total{@, error_type!=""}[$__rate_interval]))',
           "data points: {{error_type}}"),
          ('sum by (error_type) (rate(otel_sdk_exporter_span_exported_total{@, error_type!=""}[$__rate_interval]))',
           "spans: {{error_type}}"), width=24, runbook="ExecpoolExportFailing"),
]


def make():
    return dashboard(
        "execpool-fleet", "execpool / fleet",
        """All pods, by workload. It asks the recording rules of deploy/prometheus/execpool.rules.yaml wherever a
        thousand pods would make a panel slow.""",
        [("execpool / pod", "/d/execpool-pod", "dashboard", True)],
        [
            ("Is anything wrong?", IS_ANYTHING_WRONG),
            ("Saturation and budget", SATURATION),
            ("Waiting", WAITING),
            ("Wait percentiles", PERCENTILES),
            ("Hold efficiency", HOLD_EFFICIENCY),
            ("Executions and sessions", EXECUTIONS),
            ("Leaks and idle in transaction", FORGOTTEN),
            ("Server errors", SERVER_ERRORS),
            ("The databases' connections", DATABASE),
            ("Reactor and restarts", REACTOR),
            ("The sidecars themselves", SIDECARS),
        ],
    )
