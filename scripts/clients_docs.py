"""The programs' lines between `docs:` and `:docs` stand in the documentation, and nothing else does."""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "docs/clients.md", ROOT / "docs/testing.md"]
SNIPPET = re.compile(r"<!-- (\S+) -->\n```\w+\n(.*?)\n```", re.DOTALL)


def shown_of(name):
    """The marked lines of a program, each region moved to the left."""
    lines, inside, found = (ROOT / name).read_text().splitlines(), False, []
    for line in lines:
        mark = line.strip().lstrip("#/ ")
        if mark == "docs:":
            inside = True
            found.append([])
        elif mark == ":docs":
            inside = False
        elif inside:
            found[-1].append(line)
    return "\n\n".join(textwrap.dedent("\n".join(region)).strip("\n") for region in found)


def main():
    shown, write = {}, "--write" in sys.argv
    for document in DOCUMENTS:
        text = document.read_text()
        shown |= dict(SNIPPET.findall(text)) if not write else {}
        if write:
            fill = lambda m: f"<!-- {m[1]} -->\n```{m[2]}\n{shown_of(m[1])}\n```"  # noqa: E731
            document.write_text(re.sub(r"<!-- (\S+) -->\n```(\w+)\n.*?\n```", fill, text, flags=re.DOTALL))
    if write:
        return 0
    wrong = [name for name, text in shown.items() if text != shown_of(name)]
    programs = [path for path in (ROOT / "clients/programs").rglob("*") if path.suffix in {".py", ".mjs", ".ts", ".java", ".rs"}]
    missing = [name for name in (str(path.relative_to(ROOT)) for path in programs) if shown_of(name) and name not in shown]
    for name in wrong:
        print(f"the documentation does not show what {name} does (python3 scripts/clients_docs.py --write)")
    for name in missing:
        print(f"the documentation does not show {name}")
    return 1 if wrong or missing or not shown else 0


sys.exit(main())
