#!/usr/bin/env python3
"""licences.py CRATE: the copyright file of a package: ours, and that of each crate that is linked into it, with the texts that
its licence asks to be kept. What a crate says it is licensed under stands in its manifest; the texts are in its sources."""
import json
import pathlib
import re
import subprocess
import sys

HEAD = """sea_mq
======

Copyright: the contributors of sea_mq
Licence: Apache-2.0. On Debian its text is /usr/share/common-licenses/Apache-2.0.

The program contains the crates below, as their authors publish them on crates.io, and the standard library of Rust (Copyright:
The Rust Project contributors; MIT OR Apache-2.0). Of a choice of licences that contains Apache-2.0, that one is taken.
"""
NAMES = re.compile(r"^(licen[sc]e|copying|copyright|notice|unlicense)([-._].*)?$", re.IGNORECASE)
# Build scripts and macros leave nothing of their own in what is built, or leave it under the terms of what they are used for.
LINKED = {None}


def metadata():
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True)).group(1)
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", host]
    return json.loads(subprocess.check_output(command, text=True))


def linked(data, crate):
    """The crates that CRATE is linked with, itself and those of the workspace left out."""
    packages = {package["id"]: package for package in data["packages"]}
    edges = {
        node["id"]: [one["pkg"] for one in node["deps"] if LINKED & {kind["kind"] for kind in one["dep_kinds"]}]
        for node in data["resolve"]["nodes"]
    }
    start = next(id for id in data["workspace_members"] if packages[id]["name"] == crate)
    found, todo = set(), [start]
    while todo:
        one = todo.pop()
        if one not in found and "proc-macro" not in packages[one]["targets"][0]["kind"]:
            found.add(one)
            todo += edges[one]
    return sorted((packages[id] for id in found if packages[id]["source"]), key=lambda one: (one["name"], one["version"]))


def texts(package):
    """The texts in the crate's sources, without the one that every Debian has."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for file in sorted(folder.rglob("*"), key=str):
        if NAMES.match(file.name) and file.is_file() and "test" not in str(file.relative_to(folder)):
            text = "\n".join(line.rstrip() for line in file.read_text(errors="replace").splitlines()).strip()
            apache = "Apache License" in text[:300] and "Version 2.0" in text[:300] and len(text) < 13000
            if text and not apache:
                yield text


def main():
    packages, seen = linked(metadata(), sys.argv[1]), {}
    print(HEAD)
    for package in packages:
        licence = package["license"] or "see its text below"
        print(f"{package['name']} {package['version']}: {licence.replace('/', ' OR ')}")
        for text in texts(package):
            seen.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in sorted(seen.items(), key=lambda one: one[1]):
        print("\n" + "-" * 78)
        print("Of " + ", ".join(dict.fromkeys(names)) + ":\n")
        print(text)


if __name__ == "__main__":
    main()
