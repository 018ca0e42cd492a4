#!/usr/bin/env python3
"""upgrade.py write|check|freeze VERSION: the scripts that lead from the last released version to the one in Cargo.toml.

  write    makes sql/upgrade/sea_mq--OLD--NEW.sql of what differs between the released script and sql/: functions, views, triggers
           and comments. What becomes of tables and rows is said by hand, in sql/upgrade/OLD--NEW.by-hand.sql, and comes first.
  check    fails when a released script was changed, or when the upgrade script is not what `write` would make.
  freeze   keeps the script of a version that is released: sql/released/sea_mq--VERSION.sql and its checksum.
"""
import hashlib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASED = ROOT / "sql/released"
UPGRADE = ROOT / "sql/upgrade"
SUMS = RELEASED / "SHA256SUMS"
DOOR = "sql/api/door.sql"
# Quoted text, dollar quotes and comments are taken whole.
TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|;|[^;'\"$/-]+|.", re.DOTALL)
OBJECT = re.compile(r"CREATE (?:OR REPLACE )?(?:UNLOGGED )?(FUNCTION|VIEW|TRIGGER|AGGREGATE|TABLE|TYPE|SEQUENCE|DOMAIN|(?:UNIQUE )?INDEX|SCHEMA)\s+(\S+?)(?=[\s(])")
# What a second run of the same statement leaves as the first did.
BY_ITSELF = re.compile(r"(COMMENT ON|GRANT|SELECT pg_catalog\.pg_extension_config_dump)\b")


def install_script():
    """What CREATE EXTENSION runs, in the order of src/lib.rs; the door is last."""
    names = re.findall(r'extension_sql_file!\(\s*"\.\./(sql/[^"]+)"', (ROOT / "src/lib.rs").read_text())
    names.sort(key=lambda name: name == DOOR)
    return "\n".join((ROOT / name).read_text() for name in names)


def statements(script):
    """The statements, without the comments around them."""
    found, current = [], ""
    for match in TOKEN.finditer(script):
        token = match.group()
        if token.startswith(("--", "/*")):
            continue
        if token == ";":
            found.append(current.strip())
            current = ""
        else:
            current += token
    return found + ([current.strip()] if current.strip() else [])


def words(statement):
    return re.sub(r"\s+", " ", statement)


def parameters(statement):
    """The types by which a function is known, as they are written: what is between the first brackets, defaults and OUT left out."""
    depth, start = 0, statement.index("(")
    for end in range(start, len(statement)):
        depth += {"(": 1, ")": -1}.get(statement[end], 0)
        if depth == 0:
            break
    parts, depth, part = [], 0, ""
    for letter in statement[start + 1 : end] + ",":
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(words(re.sub(r"\s+(DEFAULT|=)\s.*", "", part.strip(), flags=re.DOTALL)))
            part = ""
        else:
            part += letter
    return tuple(re.sub(r"^\w+ ", "", one) if " " in one else one for one in parts if one and not one.startswith("OUT "))


def key(statement):
    """What a statement makes, or nothing."""
    match = OBJECT.match(statement)
    if not match:
        return None
    kind, name = match.group(1), match.group(2)
    if kind == "FUNCTION":
        return kind, name, parameters(statement)
    return kind, name, words(statement[match.end() :]).split(" ON ")[1].split(" ")[0] if kind == "TRIGGER" else ""


def difference(old, new):
    """The statements that are to run, and those that a person has to think of."""
    had = {words(one) for one in old}
    made = {key(one): one for one in old if key(one)}
    wanted = {key(one): one for one in new if key(one)}
    run, think = [], []
    for what, statement in reversed(made.items()):
        if what not in wanted:
            drop = f"DROP {what[0]} {what[1]}" + (f"({', '.join(what[2])})" if what[0] == "FUNCTION" else "")
            (run if what[0] in ("FUNCTION", "VIEW") else think).append(drop)
    # What is new has no comment yet, even if its text is an old one's.
    new_names = {what[1] for what in wanted if what not in made}
    for statement in new:
        what = key(statement)
        comment = re.match(r"COMMENT ON (?:FUNCTION|VIEW|TABLE|COLUMN|TYPE) (sea_mq\.\w+)", statement)
        if words(statement) in had and not (comment and comment.group(1) in new_names):
            continue
        if what and what not in made:
            run.append(statement)
        elif what and what[0] in ("FUNCTION", "VIEW", "TRIGGER"):
            run.append(re.sub(r"^CREATE (?!OR REPLACE)", "CREATE OR REPLACE ", statement))
        else:
            (run if BY_ITSELF.match(statement) else think).append(statement)
    return run, think


def last_released():
    return max((path.stem.split("--")[1] for path in RELEASED.glob("sea_mq--*.sql")), key=lambda one: [int(n) for n in one.split(".")])


def version():
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)


def upgrade(old, new):
    by_hand = UPGRADE / f"{old}--{new}.by-hand.sql"
    door = (ROOT / DOOR).read_text()
    before = statements((RELEASED / f"sea_mq--{old}.sql").read_text())
    # The door and all grants run at the end: what they leave is the same however often they run.
    at_end = {words(one) for one in statements(door)}
    install = [one for one in statements(install_script()) if words(one) not in at_end]
    grants = [one for one in install if one.startswith("GRANT ")]
    always = at_end | {words(one) for one in grants}
    after = [one for one in install if words(one) not in always]
    run, think = difference([one for one in before if words(one) not in always], after)
    hand = by_hand.read_text() if by_hand.exists() else ""
    said = {words(one) for one in statements(hand)}
    open_questions = [one for one in think if f"-- {hashlib.sha256(words(one).encode()).hexdigest()[:12]}" not in hand]
    head = f"-- From {old} to {new}. Made by scripts/upgrade.py; what is said by hand is in {by_hand.name}.\nSELECT sea_mq.check_library();\n"
    body = "".join(f"{one};\n" for one in run if words(one) not in said)
    rights = "".join(f"{one};\n" for one in grants)
    return f"{head}\n{hand}\n{body}\n{rights}\n{door}\nSELECT sea_mq.restart_at_commit();\n", open_questions


def released_unchanged():
    good = True
    for line in SUMS.read_text().splitlines():
        digest, name = line.split("  ")
        if hashlib.sha256((RELEASED / name).read_bytes()).hexdigest() != digest:
            print(f"sql/released/{name} was changed. It is released: what is to change goes into sql/, and `make upgrade-script` follows.")
            good = False
    return good


def freeze(released):
    RELEASED.mkdir(exist_ok=True)
    file = RELEASED / f"sea_mq--{released}.sql"
    if file.exists():
        sys.exit(f"{file.name} is released already")
    file.write_text(install_script())
    with SUMS.open("a") as sums:
        sums.write(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")


def main():
    what = sys.argv[1]
    if what == "freeze":
        return freeze(sys.argv[2])
    good, old, new = released_unchanged(), last_released(), version()
    if old == new:
        return None if good else sys.exit(1)
    file = UPGRADE / f"sea_mq--{old}--{new}.sql"
    script, think = upgrade(old, new)
    for one in think:
        print(f"what becomes of this is to be said in sql/upgrade/{old}--{new}.by-hand.sql, under a line with the mark")
        print(f"-- {hashlib.sha256(words(one).encode()).hexdigest()[:12]}\n    {words(one)[:300]}")
    if what == "write":
        UPGRADE.mkdir(exist_ok=True)
        file.write_text(script)
    elif not file.exists() or file.read_text() != script:
        print(f"sql/upgrade/{file.name} does not lead to sql/: make upgrade-script")
        good = False
    return None if good and not think else sys.exit(1)


if __name__ == "__main__":
    main()
