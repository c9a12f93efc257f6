"""Lists, for assemble.py, what the example's app needs to run: this Python with its standard
library, the driver psycopg, and the shared libraries that these load.

    example.py APP.py | assemble.py --name … -

It is run by the Python that is to be in the image. It takes the files of this machine as they
are, so that no registry of images is needed; that is for tests and for trying the chart, not
for images that are given to others.
"""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig

import psycopg
import psycopg_binary
import typing_extensions

# What an app has no use for, by its name below the standard library.
LEFT_OUT = {
    "__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test",
    "tests", "tkinter", "turtledemo",
}  # fmt: skip
SHARED = re.compile(r"=> (/\S+)|^\s*(/\S+)")


def below(directory: pathlib.Path) -> list[pathlib.Path]:
    """The files below a directory that an app may need."""
    found = []
    for place, directories, names in os.walk(directory):
        directories[:] = [
            name for name in directories if name not in LEFT_OUT and not name.startswith("config-")
        ]
        found += [
            pathlib.Path(place, name)
            for name in names
            if not name.endswith((".a", ".pyc")) and not name.startswith("_tkinter")
        ]
    return found


def is_elf(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(programs: list[pathlib.Path]) -> set[pathlib.Path]:
    """What the loader loads for these, and the loader itself."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    lines = (line for line in said.splitlines() if not line.endswith(":"))
    paths = (found[1] or found[2] for found in map(SHARED.search, lines) if found)
    return {pathlib.Path(os.path.normpath(path)) for path in paths}


def main() -> None:
    interpreter = pathlib.Path(sys.executable).resolve()
    driver = pathlib.Path(psycopg.__file__).parent
    site = driver.parent
    files = {interpreter, *below(pathlib.Path(sysconfig.get_path("stdlib")))}
    packages = [driver, pathlib.Path(psycopg_binary.__file__).parent, site / "psycopg_binary.libs"]
    for package in packages:
        files.update(below(package))
    files.add(pathlib.Path(typing_extensions.__file__))
    files.update(libraries([path for path in files if is_elf(path)]))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = pathlib.Path(sys.base_prefix, "lib", version, "site-packages")
    for path in sorted(files):
        place = home / path.relative_to(site) if path.is_relative_to(site) else path
        print(place, "0755" if os.access(path, os.X_OK) else "0644", "0:0", path.resolve())
    print("/usr/bin/python3 0777 0:0 ->", interpreter)
    print("/app/app.py 0644 0:0", pathlib.Path(sys.argv[1]).resolve())


if __name__ == "__main__":
    main()
