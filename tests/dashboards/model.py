"""Reads dashboards into grafana-foundation-sdk's model and writes them again: what comes back must be the same.

The model does not know what the Prometheus plug-in adds to annotations and variables (EXTRAS).
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

EXTRAS = {"definition", "step", "tagKeys", "textFormat", "titleFormat", "useValueForTime"}


def lost(ours, theirs, place=""):
    """Yields where the two differ; what is empty may be left out."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            if name in theirs:
                yield from lost(value, theirs[name], f"{place}/{name}")
            elif value not in (None, [], {}, "") and name not in EXTRAS:
                yield f"{place}/{name}: {value!r} is not in the model"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs)):
            yield from lost(one, other, f"{place}/{number}")
    elif ours != theirs:
        yield f"{place}: {ours!r} becomes {theirs!r}"


def main():
    plugins.register_default_plugins()
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.json"))
    assert files, "there are no dashboards"
    for path in files:
        ours = json.loads(path.read_text(encoding="utf-8"))
        theirs = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))
        differences = list(lost(ours, theirs))
        if differences:
            sys.exit("\n".join([path.name, *differences]))


if __name__ == "__main__":
    main()
