"""execpool / pod: one pod, or a few, in all detail."""

from parts import EXHAUSTION, ORANGE, RED, UP, YELLOW, dashboard, heatmap, lines, stat, states

POD = "namespace, workload, pod"
EXECPOOLS = "and on (namespace, pod) execpool_budget_limit{@}"


def percentiles(metric, by="db_client_connection_pool_name"):
    """p50, p95 and p99 of a histogram."""
    return [
        (f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{@}}[$__rate_interval])))",
         f"p{round(share * 100)} {{{{{by}}}}}")
        for share in (0.5, 0.95, 0.99)
    ]


def suspects():
    """Suspicions that last: those that were neither cleared nor ended."""
    return (f'sum by ({POD}) (execpool_session_leaks_total{{@, kind="suspect"}})'
            f' - sum by ({POD}) (execpool_session_leaks_total{{@, kind=~"recovered|reclaimed|ended"}})')


IS_ANYTHING_WRONG = [
    stat("Alerts firing (number)",
         "Alerts of execpool for these pods. Worry when it is not 0: each alert links to its runbook.",
         "short", 'count(ALERTS{@k, alertname=~"Execpool.*", alertstate="firing"}) or vector(0)', [(1, RED)]),
    stat("Exhaustion state",
         """What execpool itself thinks: warning is over 80 % in use for 30 s; exhausted, a wait of over 5 s; sustained,
         exhausted for 120 s. Worry from exhausted on.""",
         "short", "max(execpool_exhaustion_state{@})", [(1, YELLOW), (2, ORANGE), (3, RED)],
         words=EXHAUSTION, runbook="ExecpoolBudgetExhausted"),
    stat("How full is the fullest budget? (%)",
         """Server connections that are lent to sessions that have queried, of those the pod may have. A full budget
         that works is healthy; worry when the oldest wait grows as well.""",
         "percentunit", "max(execpool_budget_used{@} / (execpool_budget_limit{@} > 0))",
         [(0.8, YELLOW), (0.9, ORANGE)], runbook="ExecpoolPoolSaturated"),
    stat("Oldest wait for a connection (s)",
         "How long the first who waits has waited. Clients are told at 5 s, and get an error at 20 s by default.",
         "s", "max(execpool_budget_oldest_wait_seconds{@})", [(1, YELLOW), (5, RED)],
         runbook="ExecpoolWaitP99High"),
    stat("Waits that timed out (number)",
         "Errors 53300, and 08001 where the database is away, that apps got over the time shown. Worry when it is not 0.",
         "short", "sum(increase(db_client_connection_timeouts_total{@}[$__range]))", [(1, RED)],
         runbook="ExecpoolCheckoutTimeouts", over_range=True),
    stat("Connections the database withholds (number)",
         """The budget less what the database allows for now. Worry when it is not 0: others use up its
         max_connections.""",
         "short", "sum(execpool_budget_limit{@}) - sum(execpool_budget_effective{@})", [(1, ORANGE)],
         runbook="ExecpoolLimitedByDatabase"),
    stat("Oldest transaction left open (s)",
         "How long a session has asked nothing in an open transaction, with its locks. Worry from minutes on.",
         "s", 'max(execpool_session_oldest_seconds{@, state="idle_in_transaction"})', [(60, YELLOW), (300, RED)],
         runbook="ExecpoolIdleInTransaction"),
    stat("Leak suspects (sessions)",
         "Sessions that hold a connection and have asked nothing for a minute. Worry when they take a quarter of the budget.",
         "short", f"sum({suspects()})", [(1, YELLOW), (8, ORANGE)], runbook="ExecpoolSessionLeak"),
    stat("Failed connects (number)",
         "Connections to the database that failed, in reaching it or at the login, over the time shown.",
         "short", 'sum(increase(execpool_server_errors_total{@, phase=~"connect|auth"}[$__range]))',
         [(1, YELLOW), (10, RED)], runbook="ExecpoolServerConnectErrors", over_range=True),
    stat("Are the sidecars up?",
         "Whether Prometheus reaches every execpool that is shown. Down for minutes: the app has no database.",
         "short", 'min(up{@, container="execpool"})', [], words=UP, runbook="ExecpoolSidecarDown",
         none="not scraped"),
    stat("Fullest memory of a container (%)",
         "The working set against the container's limit, from the kubelet. At the limit the kernel kills it.",
         "percentunit",
         f"""max(max by (namespace, pod, container) (container_memory_working_set_bytes{{@k, container!="", container!="POD"}})
         / (max by (namespace, pod, container) (container_spec_memory_limit_bytes{{@k, container!="", container!="POD"}}) > 0)
         {EXECPOOLS})""",
         [(0.8, YELLOW), (0.9, RED)], runbook="ExecpoolAppMemoryHigh", none="no limit"),
    stat("Cleanups and restarts (number)",
         "How often execpool has cleaned up or had something restarted, over the time shown. Look why if it is not 0.",
         "short", 'sum(increase(execpool_reactor_actions_total{@, action=~"cleanup|restart", outcome="ok"}[$__range]))',
         [(1, YELLOW)], runbook="ExecpoolReactorActed", over_range=True),
]

SATURATION = [
    lines("How much of the budget is used? (%)",
          "Used, of the limit. Over 90 % for minutes the next execution will wait; healthy as long as connections work.",
          "percentunit",
          (f"max by ({POD}) (execpool_budget_used{{@}}) / (max by ({POD}) (execpool_budget_limit{{@}}) > 0)", "{{pod}}"),
          levels=[(0.8, YELLOW), (0.9, RED)], runbook="ExecpoolPoolSaturated"),
    lines("Server connections of the budget (number)",
          """Used are lent; open are all, idle ones and the reserve among them. Effective falls below the limit where
          the database allows less. Worry when used stays at effective.""",
          "short",
          ("sum(execpool_budget_used{@})", "used"), ("sum(execpool_budget_open{@})", "open"),
          ("sum(execpool_budget_reserve{@})", "reserve"), ("sum(execpool_budget_limit{@})", "limit"),
          ("sum(execpool_budget_effective{@})", "effective"), dashed=["limit", "effective"]),
    lines("Idle and used server connections, by upstream (number)",
          """What is open, against the most that may be. Many idle ones while others wait are pools of other
          executions: lower pool.idle_timeout.""",
          "short",
          ("sum by (db_client_connection_pool_name, db_client_connection_state) (db_client_connection_count{@})",
           "{{db_client_connection_pool_name}} {{db_client_connection_state}}"),
          ("sum(max by (namespace, pod) (db_client_connection_max{@}))", "max"),
          ("sum(max by (namespace, pod) (db_client_connection_idle_max{@}))", "max idle"),
          stack="normal", dashed=["max"]),
    states("In which exhaustion state is each pod?",
           "healthy, warning, exhausted, sustained. Short warnings are healthy; worry from exhausted on.",
           EXHAUSTION, (f"max by ({POD}) (execpool_exhaustion_state{{@}})", "{{pod}}"), width=12,
           runbook="ExecpoolBudgetExhausted"),
]

WAITING = [
    lines("How many wait for a connection? (sessions)",
          "Sessions in the queue. Many short waits are healthy: look at the oldest one before you worry.",
          "short", (f"max by ({POD}) (execpool_budget_waiting{{@}})", "{{pod}}")),
    lines("How long has the first one waited? (s)",
          "At 5 s clients get a NOTICE, at 20 s (pool.timeout) an error. Worry over 5 s.",
          "s", (f"max by ({POD}) (execpool_budget_oldest_wait_seconds{{@}})", "{{pod}}"),
          levels=[(5, YELLOW), (20, RED)], runbook="ExecpoolBudgetExhausted"),
    lines("Requests that wait, by upstream (number)",
          "Which database the waits are for. Worry when it is one alone: its pools are too small, or it is slow.",
          "short",
          ("sum by (db_client_connection_pool_name) (db_client_connection_pending_requests{@})",
           "{{db_client_connection_pool_name}}")),
    lines("Waits that timed out, by upstream (per second)",
          "Each is an error that the app got. Worry when it does not go back to 0.",
          "cps",
          ("sum by (db_client_connection_pool_name) (rate(db_client_connection_timeouts_total{@}[$__rate_interval]))",
           "{{db_client_connection_pool_name}}"), levels=[(0.01, RED)], runbook="ExecpoolCheckoutTimeouts"),
]

PERCENTILES = [
    lines("How long do sessions wait for a connection? (s)",
          "Percentiles of the waits that got one. A p50 in milliseconds with a p99 in seconds: a few executions starve.",
          "s", *percentiles("db_client_connection_wait_time_seconds"), levels=[(5, RED)],
          runbook="ExecpoolWaitP99High"),
    heatmap("How are the waits spread? (s)",
            "Each column is a moment, each cell how many waits took that long. Worry about cells over 5 s.",
            "sum by (le) (increase(db_client_connection_wait_time_seconds_bucket{@}[$__rate_interval]))"),
    lines("How long does it take to open a connection? (s)",
          "Dial, TLS and login. Over 0.1 s a reserve (budget.warm) or longer idle times are worth it; over 1 s the database is slow.",
          "s", *percentiles("db_client_connection_create_time_seconds"), levels=[(1, YELLOW)]),
    lines("How long do operations take at the database? (s)",
          "From the query to ReadyForQuery, without the wait for a connection. When it rises with the waits, the database is slow, not the pool small.",
          "s", *percentiles("db_client_operation_duration_seconds", by="db_namespace")),
]

HOLD_EFFICIENCY = [
    lines("What goes on while connections are held? (% of the time held)",
          """Active is work; idle in transaction and idle are connections held across something else, such as a
          model's call of minutes. Worry when active is below half and somebody waits: end the session before the
          call.""",
          "percentunit",
          ("sum by (state) (rate(execpool_checkout_held_seconds_total{@}[$__rate_interval]))"
           " / on () group_left () (sum(rate(execpool_checkout_held_seconds_total{@}[$__rate_interval])) > 0)", "{{state}}"),
          stack="normal", most=1),
    lines("Connections held on average, by what goes on (number)",
          "The same as a number of connections: what is idle here is what other executions could have.",
          "short", ("sum by (state) (rate(execpool_checkout_held_seconds_total{@}[$__rate_interval]))", "{{state}}"),
          stack="normal"),
    lines("Hold efficiency of each pod (%)",
          "Active, of the time held. Below 50 % a saturated pool is a ticket.",
          "percentunit",
          (f'sum by ({POD}) (rate(execpool_checkout_held_seconds_total{{@, state="active"}}[$__rate_interval]))'
           f" / (sum by ({POD}) (rate(execpool_checkout_held_seconds_total{{@}}[$__rate_interval])) > 0)", "{{pod}}"),
          most=1, runbook="ExecpoolPoolSaturated"),
    lines("How long is a connection held? (s)",
          "From the first query of a session to the end of the reset. Minutes are sessions that are kept open across a model's call.",
          "s", *percentiles("db_client_connection_use_time_seconds"), levels=[(60, YELLOW)]),
    heatmap("How are the holds spread? (s)",
            "Each cell: how many connections were held for that long. Two bands are two kinds of use.",
            "sum by (le) (increase(db_client_connection_use_time_seconds_bucket{@}[$__rate_interval]))", width=24),
]

EXECUTIONS = [
    lines("How many executions are there? (number)",
          "Those that have not ended, the standing one (shared) among them. A line that only rises: they are begun and never ended.",
          "short", ("sum by (state) (execpool_execution_count{@})", "{{state}}")),
    lines("Why do executions end? (per second)",
          "deleted and idle are healthy; hold_lost means that the app's process died, deadline that a run took too long.",
          "cps", ("sum by (reason) (rate(execpool_execution_ended_total{@}[$__rate_interval]))", "{{reason}}")),
    lines("What do sessions do? (number)",
          "Unbound ones hold nothing. Worry when idle and idle in transaction outgrow active while some are waiting.",
          "short", ("sum by (state) (execpool_session_count{@})", "{{state}}"), stack="normal"),
    lines("Sessions opened, and closed by why (per second)",
          "vanished, cleanup, limit, server and protocol are not the app's goodbye: worry when they are more than a few.",
          "cps", ("sum(rate(execpool_session_opened_total{@}[$__rate_interval]))", "opened"),
          ("sum by (reason) (rate(execpool_session_closed_total{@}[$__rate_interval]))", "{{reason}}")),
    lines("What have apps registered with their executions? (number)",
          "Browsers, files and others that execpool can't close. A line that only rises is a leak of the app's.",
          "short", ("sum by (kind) (execpool_resources{@})", "{{kind}}")),
    lines("Sessions pinned to their connection, by why (per second)",
          "In transaction mode: connections that can't be shared until their session ends. Worry when it is most of them.",
          "cps", ("sum by (reason) (rate(execpool_pins_total{@}[$__rate_interval]))", "{{reason}}")),
]

LEAKS = [
    lines("How many sessions are suspected of being forgotten? (number)",
          "They hold a connection and have asked nothing for session.leak_after (60 s). A level line is a client-side pool; a rising one a leak.",
          "short", (suspects(), "{{pod}}"), runbook="ExecpoolSessionLeak"),
    lines("What becomes of suspicions? (per second)",
          "recovered: it was used again; ended: it never was, which is a leak; reclaimed: a cleanup ended it.",
          "cps", ("sum by (kind) (rate(execpool_session_leaks_total{@}[$__rate_interval]))", "{{kind}}")),
    lines("The session that has stood for longest in each state (s)",
          "Idle for hours is a client-side pool or forgotten; active for minutes is a slow query.",
          "s", ("max by (state) (execpool_session_oldest_seconds{@})", "{{state}}"), width=24),
]

IDLE_IN_TRANSACTION = [
    lines("How many sessions have left a transaction open? (number)",
          "They ask nothing and hold locks. Worry when it does not go back to 0.",
          "short", (f'sum by ({POD}) (execpool_session_count{{@, state="idle_in_transaction"}})', "{{pod}}"),
          runbook="ExecpoolIdleInTransaction"),
    lines("For how long has one been left open? (s)",
          "10 s brings a NOTICE to the client; a cleanup may end it from 60 s on; the alert begins at 300 s.",
          "s", (f'max by ({POD}) (execpool_session_oldest_seconds{{@, state="idle_in_transaction"}})', "{{pod}}"),
          levels=[(60, YELLOW), (300, RED)], runbook="ExecpoolIdleInTransaction"),
]

SERVER_ERRORS = [
    lines("Where do server connections fail? (per second)",
          "connect and auth: no connection can be had; reset and ping: one was lost at rest; relay: queries fail, or connections amid them.",
          "cps", ("sum by (phase) (rate(execpool_server_errors_total{@}[$__rate_interval]))", "{{phase}}"),
          runbook="ExecpoolServerConnectErrors"),
    lines("With which class of SQLSTATE? (per second)",
          "08 connection, 28 login, 53 no connection left, 57 shut down or cancelled; 22, 23 and 42 are the app's own statements.",
          "cps", ("sum by (phase, class) (rate(execpool_server_errors_total{@}[$__rate_interval]))", "{{phase}} {{class}}")),
    lines("Failed operations, by SQLSTATE (per second)",
          "What clients were told. 57P01 is execpool's own end of a session, 08006 a lost connection.",
          "cps",
          ('sum by (db_namespace, db_response_status_code) '
           '(rate(db_client_operation_duration_seconds_count{@, db_response_status_code!=""}[$__rate_interval]))',
           "{{db_namespace}} {{db_response_status_code}}")),
    lines("Cancels, by whom (per second)",
          "client is the app's own; disconnect: the client has gone amid a query; execution: it ended; cleanup: a remedy.",
          "cps", ("sum by (origin) (rate(execpool_cancels_total{@}[$__rate_interval]))", "{{origin}}")),
]

DATABASE = [
    lines("Whose are the database's connections? (number)",
          "Ours are this pod's, others those of all else at the same database. Worry when the two together come near max.",
          "short", ("max by (kind) (execpool_database_connections{@})", "{{kind}}"),
          dashed=["max"], runbook="ExecpoolLimitedByDatabase"),
    lines("How full is the database? (%)",
          "All connections, of max_connections. At 100 % it refuses, and the effective budget falls.",
          "percentunit",
          ('max(sum by (namespace, pod) (execpool_database_connections{@, kind=~"ours|others"})'
           ' / sum by (namespace, pod) (execpool_database_connections{@, kind="max"}))', "in use"),
          levels=[(0.8, YELLOW), (0.95, RED)], most=1, runbook="ExecpoolLimitedByDatabase"),
]

REACTOR = [
    lines("What does the reactor do? (per second)",
          "annotate, condition and event tell Kubernetes; cleanup and restart are remedies. refused: a guard was against it, and the log says which.",
          "cps",
          ("sum by (action, outcome) (rate(execpool_reactor_actions_total{@}[$__rate_interval]))", "{{action}} {{outcome}}"),
          runbook="ExecpoolReactorActed"),
    lines("What of it fails? (per second)",
          "annotate, condition and event: the Kubernetes API did not do it. restart: it was wanted, and a guard was against it, or it failed.",
          "cps",
          ('sum by (action, outcome) (rate(execpool_reactor_actions_total{@, outcome=~"error|refused"}[$__rate_interval]))',
           "{{action}} {{outcome}}"), runbook="ExecpoolKubernetesFailing"),
    lines("For how long has each container run? (s)",
          "From the kubelet. A line that falls to 0 is a restart: of the app alone by liveness, of all by exit code, of a pod by eviction.",
          "s",
          (f'time() - max by (namespace, pod, container) (container_start_time_seconds{{@k, container!="", container!="POD"}}) {EXECPOOLS}',
           "{{pod}} {{container}}"), runbook="ExecpoolReactorActed"),
]

TOP_EXECUTIONS = [
    lines("Which executions have most connections? (number)",
          "Only with telemetry.top_executions above 0, over OTLP. One that stays at its pool's limit holds what others wait for.",
          "short", ("topk(10, execpool_execution_connections{@})", "{{execpool_execution_id}}")),
    lines("Which executions hold connections most? (connections on average)",
          "Only with telemetry.top_executions above 0, over OTLP. Seconds held in a second.",
          "short", ("topk(10, rate(execpool_execution_held_seconds_total{@}[$__rate_interval]))", "{{execpool_execution_id}}")),
]

SIDECAR = [
    lines("How much CPU does the sidecar take? (cores)",
          "User and system time. 0.1 is some ten thousand transactions a second; worry at a whole core, which is all that the data plane has.",
          "short", ("sum by (pod, cpu_mode) (rate(process_cpu_time_seconds_total{@}[$__rate_interval]))", "{{pod}} {{cpu_mode}}"),
          levels=[(0.9, RED)], stack="normal"),
    lines("How much memory does the sidecar take? (bytes)",
          "Resident. Some ten megabytes, and 5 kB a session; worry when it rises and sessions don't.",
          "bytes", (f"max by ({POD}) (process_memory_usage_bytes{{@}})", "{{pod}}")),
    lines("Open file descriptors (number)",
          "A session and a server connection take one each. At the limit no more are accepted, which the log says.",
          "short", (f"max by ({POD}) (process_open_file_descriptor_count{{@}})", "{{pod}}")),
    lines("Memory of the pod's containers (% of the limit)",
          "From the kubelet, for every container with a limit. Over 90 % for minutes is a ticket.",
          "percentunit",
          (f"""max by (namespace, pod, container) (container_memory_working_set_bytes{{@k, container!="", container!="POD"}})
           / (max by (namespace, pod, container) (container_spec_memory_limit_bytes{{@k, container!="", container!="POD"}}) > 0)
           {EXECPOOLS}""", "{{pod}} {{container}}"),
          levels=[(0.9, RED)], runbook="ExecpoolAppMemoryHigh"),
    lines("Exported data points and spans (per second)",
          "What reaches the collector over OTLP; 0 where no endpoint is set. Worry when it falls to 0 and an endpoint is.",
          "cps",
          ('sum(rate(otel_sdk_exporter_metric_data_point_exported_total{@, error_type=""}[$__rate_interval]))', "data points"),
          ('sum(rate(otel_sdk_exporter_span_exported_total{@, error_type=""}[$__rate_interval]))', "spans")),
    lines("Exports that failed, by why (per second)",
          "Data points and spans that the collector did not get. Worry when it lasts; pooling is not touched by it.",
          "cps",
          ('sum by (error_type) (rate(otel_sdk_exporter_metric_data_point_exported_total{@, error_type!=""}[$__rate_interval]))',
           "data points: {{error_type}}"),
          ('sum by (error_type) (rate(otel_sdk_exporter_span_exported_total{@, error_type!=""}[$__rate_interval]))',
           "spans: {{error_type}}"), runbook="ExecpoolExportFailing"),
    lines("How old is what the numbers are read from? (s)",
          "The data plane is looked at every second. Worry when it is more than a few: it does not answer.",
          "s", (f"max by ({POD}) (execpool_snapshot_age_seconds{{@}})", "{{pod}}"), levels=[(5, RED)]),
    lines("Scrapes that failed, by why (per second)",
          "refused: too many at once; cut: Prometheus did not read to the end. Worry when it lasts: gaps in all panels come of it.",
          "cps", ("sum by (reason) (rate(execpool_scrape_failed_total{@}[$__rate_interval]))", "{{reason}}")),
    lines("Log lines that were dropped (per second)",
          "Nobody reads standard error fast enough, and nobody is made to wait for it. Worry when it lasts.",
          "cps", (f"sum by ({POD}) (rate(execpool_log_dropped_total{{@}}[$__rate_interval]))", "{{pod}}")),
]


def make():
    return dashboard(
        "execpool-pod", "execpool / pod",
        "One pod, or a few: who waits, who holds, and what fails. The first row says whether anything is wrong.",
        [("execpool / fleet", "/d/execpool-fleet", "dashboard", True)],
        [
            ("Is anything wrong?", IS_ANYTHING_WRONG),
            ("Saturation and budget", SATURATION),
            ("Waiting", WAITING),
            ("Wait percentiles", PERCENTILES),
            ("Hold efficiency", HOLD_EFFICIENCY),
            ("Executions and sessions", EXECUTIONS),
            ("Leaks", LEAKS),
            ("Idle in transaction", IDLE_IN_TRANSACTION),
            ("Server errors", SERVER_ERRORS),
            ("The database's connections", DATABASE),
            ("Reactor and restarts", REACTOR),
            ("Top executions (over OTLP)", TOP_EXECUTIONS),
            ("The sidecar itself", SIDECAR),
        ],
    )
