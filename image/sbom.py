"""Writes a bill of materials of the execpool binary, in CycloneDX's JSON, to standard output.

    sbom.py --target TRIPLE

It lists the crates that are linked into the binary, as Cargo.lock pins them: normal
dependencies for the target. What only runs while it is built (build scripts and what they
need, procedural macros) is not in it. Rust's standard library and the C library, which are
linked in as well, are named by the versions that this machine builds with. The same
Cargo.lock on the same machine gives the same bytes.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def linked(metadata: dict) -> set[str]:
    """The ids of the packages that are linked into the root package's binary."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    def is_macro(package: str) -> bool:
        return any("proc-macro" in target["kind"] for target in packages[package]["targets"])

    found, open_ = set(), [metadata["resolve"]["root"]]
    while open_:
        package = open_.pop()
        if package in found or is_macro(package):
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                open_.append(dependency["pkg"])
    return found


def reference(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, checksums: dict[tuple, str]) -> dict:
    """A crate, with its checksum in the registry."""
    entry = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        # The older way of saying "or" is no expression.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def checksums_of(lock: str) -> dict[tuple, str]:
    """The checksums of the registry, by name and version, as Cargo.lock has them."""
    found = {}
    for package in lock.split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(\w+) = "(.*)"$', package, re.MULTILINE))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def toolchain() -> list[dict]:
    """The two libraries that come from no registry."""
    rust = output("rustc", "--version").split()[1]
    kind, version = output("getconf", "GNU_LIBC_VERSION").split()
    return [
        {"type": "library", "bom-ref": name, "name": name, "version": version}
        for name, version in [("rust-std", rust), (kind, version)]
    ]


def bill(target: str) -> dict:
    words = "cargo metadata --locked --format-version 1 --filter-platform".split()
    metadata = json.loads(output(*words, target))
    checksums = checksums_of((ROOT / "Cargo.lock").read_text())
    ids = linked(metadata)
    packages = {package["id"]: package for package in metadata["packages"] if package["id"] in ids}
    root = packages[metadata["resolve"]["root"]]
    libraries = toolchain()
    edges = {reference(package): set() for package in packages.values()}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in packages:
            kept = (dependency["pkg"] for dependency in node["deps"] if dependency["pkg"] in packages)
            edges[reference(packages[node["id"]])].update(reference(packages[id]) for id in kept)
    edges[reference(root)].update(library["bom-ref"] for library in libraries)
    others = [component(package, checksums) for package in packages.values() if package is not root]
    main = component(root, checksums) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": sorted(others + libraries, key=lambda entry: entry["bom-ref"]),
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(edges.items())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", required=True, help="the triple that is built for")
    try:
        found = bill(parser.parse_args().target)
    except subprocess.CalledProcessError as why:
        sys.exit(f"sbom.py: {' '.join(why.cmd)}: {why.stderr}")
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
