"""The parts that dashboards are made of, as Grafana's classic JSON has them.

In an expression, {@} stands for the pods that the variables choose, {@w} for the workloads (what the
recording rules keep has no pod), and {@k} for pods as the kubelet's series know them, without a workload.
"""

RUNBOOKS = "https://github.com/execpool/execpool/blob/main/docs/sre.md"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTORS = {
    "@w": 'namespace=~"$namespace", workload=~"$workload"',
    "@k": 'namespace=~"$namespace", pod=~"$pod"',
    "@": 'namespace=~"$namespace", workload=~"$workload", pod=~"$pod"',
}
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"

# What execpool_exhaustion_state, up and the reactor's counts mean.
EXHAUSTION = {0: ("healthy", GREEN), 1: ("warning", YELLOW), 2: ("exhausted", ORANGE), 3: ("sustained", RED)}
UP = {0: ("down", RED), 1: ("up", GREEN)}


def promql(text):
    """An expression on one line, with the selectors in place."""
    text = " ".join(text.split())
    for short, selector in SELECTORS.items():
        text = text.replace("{" + short + "}", "{" + selector + "}").replace("{" + short + ",", "{" + selector + ",")
    return text


def steps(*levels):
    """Thresholds: green, and from each level on its colour."""
    return [{"color": GREEN, "value": None}] + [{"color": colour, "value": at} for at, colour in levels]


def _mappings(words):
    options = {
        str(value): {"text": text, "color": colour, "index": place}
        for place, (value, (text, colour)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]


def _targets(queries, instant=False, table_format="time_series"):
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": promql(expr),
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
            "format": table_format,
        }
        for place, (expr, legend) in enumerate(queries)
    ]


def _panel(kind, title, about, unit, targets, size, levels, words, runbook):
    defaults = {
        "unit": unit,
        "color": {"mode": "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps(*levels)},
        "mappings": _mappings(words) if words else [],
    }
    panel = {
        "type": kind,
        "title": title,
        "description": " ".join(about.split()),
        "datasource": DATASOURCE,
        "size": size,  # becomes gridPos
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
    }
    if runbook:
        panel["links"] = [{"title": f"Runbook: {runbook}", "url": f"{RUNBOOKS}#{runbook.lower()}", "targetBlank": True}]
    return panel


def stat(title, about, unit, expr, levels=(), words=None, runbook=None, over_range=False, none=None):
    """One number, coloured by its thresholds. `over_range`: the expression is over the whole time shown."""
    targets = _targets([(expr, title)], instant=over_range)
    panel = _panel("stat", title, about, unit, targets, (4, 4), levels, words, runbook)
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    if none:
        panel["fieldConfig"]["defaults"]["noValue"] = none
    panel["options"] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "none" if over_range else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value",
    }
    return panel


def lines(title, about, unit, *queries, levels=(), stack=None, width=12, runbook=None, dashed=(), most=None):
    """Lines over time. `stack` is "normal" or "percent"; `dashed` names legends that are limits."""
    panel = _panel("timeseries", title, about, unit, _targets(queries), (width, 8), levels, None, runbook)
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": stack or "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if levels else "off"},
    }
    panel["fieldConfig"]["defaults"] |= {"custom": custom, "min": 0}
    if most is not None:
        panel["fieldConfig"]["defaults"]["max"] = most
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byRegexp", "options": f".*{name}.*"},
            "properties": [
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.stacking", "value": {"mode": "none", "group": name}},
            ],
        }
        for name in dashed
    ]
    panel["options"] = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def states(title, about, words, *queries, width=24, runbook=None):
    """A bar per series, coloured by its state."""
    panel = _panel("state-timeline", title, about, "short", _targets(queries), (width, 7), (), words, runbook)
    panel["fieldConfig"]["defaults"] |= {"custom": {"fillOpacity": 80, "lineWidth": 0}}
    panel["options"] = {
        "mergeValues": True,
        "showValue": "auto",
        "rowHeight": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel


def heatmap(title, about, expr, width=12):
    """How times are spread: an expression by `le`, in seconds."""
    targets = _targets([(expr, "{{le}}")], table_format="heatmap")
    panel = _panel("heatmap", title, about, "short", targets, (width, 8), (), None, None)
    panel["options"] = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "reverse": False},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"show": True, "yHistogram": False},
        "yAxis": {"unit": "s", "axisPlacement": "left"},
    }
    return panel


def table(title, about, *columns, link=None, order_by=None):
    """A row per pod; each column is (expression, heading, unit, thresholds)."""
    targets = _targets([(expr, heading) for expr, heading, _, _ in columns], instant=True, table_format="table")
    panel = _panel("table", title, about, "short", targets, (24, 9), (), None, None)
    overrides = []
    for place, (_, heading, unit, levels) in enumerate(columns):
        properties = [
            {"id": "displayName", "value": heading},
            {"id": "unit", "value": unit},
            {"id": "thresholds", "value": {"mode": "absolute", "steps": steps(*levels)}},
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}},
        ]
        name = f"Value #{chr(ord('A') + place)}" if len(columns) > 1 else "Value"
        overrides.append({"matcher": {"id": "byName", "options": name}, "properties": properties})
    if link:
        links = [{"title": link[0], "url": link[1]}]
        overrides.append({"matcher": {"id": "byName", "options": "pod"}, "properties": [{"id": "links", "value": links}]})
    panel["fieldConfig"]["overrides"] = overrides
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {}, "indexByName": {}}},
    ]
    panel["options"] = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": order_by, "desc": True}]}
    return panel


def _query_variable(name, query):
    query = promql(query)
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "Variable"},
        "refresh": 2,  # with the time range
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "regex": "",
        "options": [],
    }


def _variables():
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
        "options": [],
    }
    return [
        datasource,
        _query_variable("namespace", "label_values(execpool_budget_limit, namespace)"),
        _query_variable("workload", 'label_values(execpool_budget_limit{namespace=~"$namespace"}, workload)'),
        _query_variable("pod", "label_values(execpool_budget_limit{@w}, pod)"),
    ]


def _annotation(name, colour, expr, text):
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": promql(expr),
        "step": "60s",
        "titleFormat": name,
        "textFormat": text,
        "tagKeys": "namespace,workload,pod",
        "useValueForTime": False,
    }


def _annotations():
    """Grafana marks where a value is 1 or more: never what is 0, as the state of who has recovered."""
    state = "max by (namespace, workload, pod) (execpool_exhaustion_state{@})"
    before = "max by (namespace, workload, pod) (execpool_exhaustion_state{@} offset 1m)"
    pods = "on (namespace, workload, pod)"
    return [
        _annotation("Exhausted", RED, f"{state} >= 2 unless {pods} {before} >= 2", "{{namespace}}/{{pod}} is exhausted"),
        _annotation("Recovered", GREEN, f"{before} >= 2 and {pods} {state} < 2", "{{namespace}}/{{pod}} has recovered"),
        _annotation("Cleanup or restart", BLUE,
                    'sum by (namespace, workload, pod, action) '
                    '(increase(execpool_reactor_actions_total{@, action=~"cleanup|restart", outcome="ok"}[1m])) > 0',
                    "{{action}} in {{namespace}}/{{pod}}"),
    ]


def _place(panels, top):
    """Gives each panel its gridPos, from left to right; returns the first line below them."""
    x = y = height = 0
    for panel in panels:
        width, high = panel.pop("size")
        if x + width > 24:
            x, y, height = 0, y + height, 0
        panel["gridPos"] = {"x": x, "y": top + y, "w": width, "h": high}
        x, height = x + width, max(height, high)
    return top + y + height


def dashboard(uid, title, about, links, rows):
    """A dashboard of rows: (title, panels). The first is open, the others are collapsed."""
    panels, top, ids = [], 0, iter(range(1, 1000))
    for place, (row_title, row_panels) in enumerate(rows):
        collapsed = place > 0
        row = {"id": next(ids), "type": "row", "title": row_title, "collapsed": collapsed, "panels": []}
        row["gridPos"] = {"x": 0, "y": top, "w": 24, "h": 1}
        for panel in row_panels:
            panel["id"] = next(ids)
        below = _place(row_panels, top + 1)
        panels.append(row)
        if collapsed:
            row["panels"] = row_panels
            top += 1
        else:
            panels.extend(row_panels)
            top = below
    return {
        "uid": uid,
        "title": title,
        "description": " ".join(about.split()),
        "tags": ["execpool", "postgresql"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # a crosshair that all panels share
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": _annotations()},
        "links": [
            {"type": "link", "title": text, "url": url, "icon": icon, "keepTime": own, "includeVars": own,
             "targetBlank": not own, "asDropdown": False, "tags": [], "tooltip": text}
            for text, url, icon, own in [*links, ("Runbooks", RUNBOOKS, "doc", False)]
        ],
        "panels": panels,
    }
