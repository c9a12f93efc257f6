#!/usr/bin/env python3
"""Writes dashboards/*.json from pod.py and fleet.py; needs Python alone.

    deploy/grafana/make.py            write them
    deploy/grafana/make.py --check    exit 1 if they are not what would be written

The JSON is what Grafana imports, and is committed; change the Python, which says once what is the same for
every panel, and run this.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True  # nothing is left beside the sources

import fleet
import pod

HERE = pathlib.Path(__file__).parent / "dashboards"


def main():
    old = []
    for make in (pod.make, fleet.make):
        made = make()
        path = HERE / f"{made['uid']}.json"
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            old.append(path.name)
    if old:
        sys.exit(f"old: {', '.join(old)}; run deploy/grafana/make.py")


if __name__ == "__main__":
    main()
