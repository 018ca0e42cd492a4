"""The programs' lines between `docs:` and `:docs` stand in docs/clients.md, and nothing else does."""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs/clients.md").read_text()


def regions(path):
    """The marked lines of a program, each region moved to the left."""
    lines, inside, found = path.read_text().splitlines(), False, []
    for line in lines:
        mark = line.strip().lstrip("#/ ")
        if mark == "docs:":
            inside = True
            found.append([])
        elif mark == ":docs":
            inside = False
        elif inside:
            found[-1].append(line)
    return [textwrap.dedent("\n".join(region)).strip("\n") for region in found]


def main():
    shown = re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)\n```", DOCS, re.DOTALL)
    wrong = [name for name, text in shown if text != "\n\n".join(regions(ROOT / name))]
    named = {name for name, _ in shown}
    programs = [path for path in (ROOT / "clients/programs").rglob("*") if path.suffix in {".py", ".mjs", ".ts", ".java", ".rs"}]
    missing = [str(path.relative_to(ROOT)) for path in programs if regions(path) and str(path.relative_to(ROOT)) not in named]
    if "--write" in sys.argv:
        text = re.sub(
            r"<!-- (\S+) -->\n```(\w+)\n.*?\n```",
            lambda m: f"<!-- {m[1]} -->\n```{m[2]}\n" + "\n\n".join(regions(ROOT / m[1])) + "\n```",
            DOCS,
            flags=re.DOTALL,
        )
        (ROOT / "docs/clients.md").write_text(text)
        return 0
    for name in wrong:
        print(f"docs/clients.md does not show what {name} does (python scripts/clients_docs.py --write)")
    for name in missing:
        print(f"docs/clients.md does not show {name}")
    return 1 if wrong or missing or not shown else 0


sys.exit(main())
