#!/usr/bin/env python3
"""Checks that the imports of src/ go down its storeys, and that no circle of files is larger than three.

    storeys.py            prints what is wrong, and exits with 1 if there is anything
    storeys.py --count    prints the storeys with their files, and every circle of files

A storey is a folder of src/. Each may use those before it in STOREYS, and itself. The files beside the folders (lib, init,
commit) are on top of all. A circle is a strongly connected component of the graph of imports between files; paths in test
modules count as well.
"""

import pathlib
import re
import sys

STOREYS = ["sys", "host", "log", "registry", "streams", "emit", "inbox", "deliver", "workers", "api"]
LARGEST_CIRCLE = 3
SRC = pathlib.Path(__file__).resolve().parent.parent / "src"


def module_of(path):
    parts = path.relative_to(SRC).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


def leaves(tree, prefix=()):
    """The paths of a use tree."""
    tree = re.sub(r"\s+as\s+\w+$", "", tree.strip())
    head, brace, rest = tree.partition("{")
    if not brace:
        return [prefix + tuple(part for part in tree.split("::") if part)]
    prefix += tuple(part for part in head.split("::") if part)
    found, depth, start, inner = [], 0, 0, rest[: rest.rindex("}")]
    for place, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if inner[start:place].strip():
                found += leaves(inner[start:place], prefix)
            start = place + 1
    return found


def paths_in(text):
    text = re.sub(r"//[^\n]*", "", text)
    use = re.compile(r"\buse\s+((?:super|crate|self)\b[^;]*);")
    for tree in use.findall(text):
        yield from leaves(tree)
    rest = use.sub("", text)
    for path in re.findall(r"(?<![\w:])((?:super|crate|self)(?:::\w+)+)", rest):
        yield tuple(path.split("::"))


def absolute(module, path):
    if path[0] == "crate":
        return path[1:]
    while path and path[0] in ("super", "self"):
        module = module[:-1] if path[0] == "super" else module
        path = path[1:]
    return module + path


def imports(files):
    graph = {}
    for module, path in files.items():
        targets = set()
        for used in paths_in(path.read_text()):
            used = absolute(module, used)
            while used not in files:
                used = used[:-1]
            targets.add(used)
        graph[module] = targets - {module, ()}
    return graph


def circles(graph):
    """Tarjan's strongly connected components with more than one member."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            members = []
            while not members or members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1:
                found.append(sorted(members))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found, key=len, reverse=True)


def height(module):
    return STOREYS.index(module[0]) if len(module) and module[0] in STOREYS else len(STOREYS)


def name(module):
    return "::".join(module)


def main():
    files = {module_of(path): path for path in sorted(SRC.rglob("*.rs"))}
    graph = imports(files)
    up = [(user, used) for user, targets in graph.items() for used in targets if height(used) > height(user)]
    found = circles(graph)
    if "--count" in sys.argv:
        for storey in STOREYS:
            print(f"{storey:<9} {sum(module[:1] == (storey,) for module in files):3} files")
        for members in found:
            print(f"circle of {len(members)}: {', '.join(map(name, members))}")
        if not found:
            print("no circles")
    wrong = [f"{name(user)} uses {name(used)}, which is above it" for user, used in sorted(up)]
    wrong += [f"a circle of {len(one)} files: {', '.join(map(name, one))}" for one in found if len(one) > LARGEST_CIRCLE]
    for line in wrong:
        print(line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
