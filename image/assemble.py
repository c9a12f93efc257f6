"""Makes a container image of a list of files, without a container engine.

    assemble.py --name NAME:TAG --output FILE.tar [options] LIST

LIST ("-" for standard input) has a line per entry: its path in the image, its mode, its
owner as UID:GID, and where it comes from:

    /execpool        0755 0:0          {binary}
    /etc/passwd      0644 0:0          passwd
    /run/execpool/   0770 65532:65532
    /bin/sh          0777 0:0          -> busybox

A path that ends with a slash is a directory; directories above an entry are made. Sources
are relative to the list's own directory, {NAME} is what --source NAME=PATH says, and what
is behind an arrow is the target of a symbolic link. Lines that begin with # are comments.

The archive is an OCI image layout that is a Docker archive as well: `ctr images import`,
`docker load`, `podman load` and `skopeo` take it. The same files and options make the same
bytes: times are SOURCE_DATE_EPOCH (0 unless set), entries are sorted, and nothing else of
the machine goes in.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"


class Refused(Exception):
    """A list or an option that makes no image, in a sentence."""


def entries(text: str, directory: pathlib.Path, sources: dict[str, str]) -> dict[str, tuple]:
    """The list's entries by path: mode, owner and group, and the source, a path or a link."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split(maxsplit=3)
        if len(words) < 3 or not words[0].startswith("/") or "/../" in words[0]:
            raise Refused(f"line {number} is no entry: {line}")
        path, mode, owner = words[:3]
        source = words[3].strip() if len(words) == 4 else None
        if source and not source.startswith("->"):
            if source.startswith("{"):
                name = source.strip("{}")
                if name not in sources:
                    raise Refused(f"line {number}: say what {source} is with --source {name}=PATH")
                source = sources[name]
            source = directory / source
        if not source and not path.endswith("/"):
            raise Refused(f"line {number}: {path} has no source; a directory ends with a slash")
        found[path.strip("/")] = (int(mode, 8), *map(int, owner.split(":")), source)
    return found


def with_parents(found: dict[str, tuple]) -> dict[str, tuple]:
    """The same with the directories above, as root's."""
    whole = dict(found)
    for path in found:
        for parent in pathlib.PurePosixPath(path).parents:
            if str(parent) != ".":
                whole.setdefault(str(parent), (0o755, 0, 0, None))
    return whole


def layer(found: dict[str, tuple], time: int) -> bytes:
    """The files as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, (mode, uid, gid, source) in sorted(with_parents(found).items()):
            entry = tarfile.TarInfo(path)
            entry.mode, entry.uid, entry.gid, entry.mtime = mode, uid, gid, time
            if source is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            elif isinstance(source, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, source.removeprefix("->").strip()
                archive.addfile(entry)
            else:
                content = source.read_bytes()
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def config(options: argparse.Namespace, rootfs: bytes, created: str) -> dict:
    """The image's configuration."""
    wanted = {
        "User": options.user,
        "Env": options.env,
        "Entrypoint": options.entrypoint,
        "Cmd": options.cmd,
        "WorkingDir": options.workdir,
        "Labels": dict(pair.split("=", 1) for pair in options.label),
        "ExposedPorts": {port: {} for port in options.expose},
        "StopSignal": options.stop_signal,
    }
    return {
        "created": created,
        "architecture": options.architecture,
        "os": "linux",
        "config": {name: value for name, value in wanted.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [digest(rootfs)]},
        "history": [{"created": created, "created_by": "image/assemble.py"}],
    }


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def encoded(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def descriptor(kind: str, content: bytes, **more) -> dict:
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def place(content: bytes) -> str:
    return "blobs/" + digest(content).replace(":", "/")


def archive(options: argparse.Namespace, found: dict[str, tuple], time: int) -> dict[str, bytes]:
    """The files of the archive, by name."""
    created = datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    rootfs = layer(found, time)
    packed = gzip.compress(rootfs, 9, mtime=0) if options.gzip else rootfs
    kind = f"{OCI}.layer.v1.tar" + ("+gzip" if options.gzip else "")
    settings = encoded(config(options, rootfs, created))
    manifest = encoded(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": descriptor(f"{OCI}.config.v1+json", settings),
            "layers": [descriptor(kind, packed)],
        }
    )
    # The second name is containerd's: it takes the image by its whole name.
    names = {
        "org.opencontainers.image.ref.name": options.name.rpartition(":")[2],
        "io.containerd.image.name": options.name,
    }
    entry = descriptor(
        f"{OCI}.manifest.v1+json",
        manifest,
        annotations=names,
        platform={"architecture": options.architecture, "os": "linux"},
    )
    docker = {"Config": place(settings), "RepoTags": [options.name], "Layers": [place(packed)]}
    return {
        "oci-layout": encoded({"imageLayoutVersion": "1.0.0"}),
        "index.json": encoded(
            {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [entry]}
        ),
        "manifest.json": encoded([docker]),
        place(settings): settings,
        place(manifest): manifest,
        place(packed): packed,
    }


def write(path: pathlib.Path, files: dict[str, bytes], time: int) -> None:
    """Writes the archive beside its place, then moves it there."""
    young = path.with_name(path.name + f".{os.getpid()}")
    with tarfile.open(young, "w", format=tarfile.PAX_FORMAT) as out:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, time
            out.addfile(entry, io.BytesIO(content))
    young.replace(path)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True, help="registry/repository:tag")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--source", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--entrypoint", action="append", help="a word of it; repeat")
    parser.add_argument("--cmd", action="append", help="a word of it; repeat")
    parser.add_argument("--user")
    parser.add_argument("--workdir")
    parser.add_argument("--stop-signal")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--expose", action="append", default=[], metavar="PORT/tcp")
    parser.add_argument("--gzip", action="store_true", help="compress the layer")
    machine = platform.machine()
    parser.add_argument("--architecture", default=ARCHITECTURES.get(machine, machine))
    parser.add_argument("list", help="the list of files, or - for standard input")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    if chosen.list == "-":
        text, directory = sys.stdin.read(), pathlib.Path.cwd()
    else:
        path = pathlib.Path(chosen.list)
        text, directory = path.read_text(), path.parent
    sources = dict(pair.split("=", 1) for pair in chosen.source)
    sources = {name: str(pathlib.Path(path).absolute()) for name, path in sources.items()}
    found = entries(text, directory, sources)
    write(chosen.output, archive(chosen, found, time), time)


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as why:
        sys.exit(f"assemble.py: {why}")
