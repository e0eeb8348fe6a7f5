#!/usr/bin/env python3
"""Checks an export of a Tallygate ledger with nothing but Python:

    tallygate ledger export --ledger data/ledger.db | python3 docs/check_ledger.py

Follows the chain, hashes what each seal covers again, adds up what every department used and whether all of it ended;
ends with 1 if anything differs. docs/ledger.md describes the text."""
import hashlib
import sys
from collections import Counter

ENDS = "ok client_error server_error unreachable upstream_failed timeout aborted interrupted in_flight".split()
source = open(sys.argv[1], encoding="utf-8", newline="\n") if len(sys.argv) > 1 else sys.stdin
faults, commands, units, epochs, contents, unvouched = [], Counter(), Counter(), {}, {}, {}
previous, number, seals, ended, gaps, horizon = "0" * 64, 0, 0, False, False, ""

def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

def check_seal(head, lines):
    global previous, number, seals
    _, this, version, kind, epoch, window, count, content, before, digest, sealed_at, _ = head
    text, rolled = "".join(line + "\n" for line in lines), kind == "hour" and window < horizon
    if int(this) != number + 1 or before != previous:
        faults.append(f"seal {this} does not follow seal {number}")
    if not rolled and (len(lines) != int(count) or sha256(text) != content):
        faults.append(f"seal {this} ({kind} {window}): its rows are not those that were sealed")
    fields = (f"tallygate seal {version}", this, kind, epoch, window, count, content, before, sealed_at, "")
    old = f"tallygate seal 1\n{this}\n{epoch}\n{window}\n{before}\n{text}"  # needs its rows
    if not (rolled and version == "1") and sha256(old if version == "1" else "\n".join(fields)) != digest:
        faults.append(f"seal {this}: its hash is not that of its fields")
    contents[this] = content
    if rolled:
        unvouched[this] = digest  # its rows are gone, so the seal of its day must cover it
    for _, covered, value in (line.split("\t") for line in lines if line.startswith("seal\t")):
        if value != (contents.get(covered) if kind == "migration" else unvouched.pop(covered, None)):
            faults.append(f"seal {this}: it covers seal {covered} as another than it is")
    if kind == "epoch" and lines != [epochs.pop(epoch, None)]:
        faults.append(f"seal {this}: epoch {epoch} did not end as the book says")
    previous, number, seals = digest, int(this), seals + 1

def add_up(row):
    if row[0] == "admission":
        key, numbers = (row[1], "admitted"), row[4:6]
    elif row[0] in ("usage", "day"):
        key, numbers = (row[1], row[4]), row[-5:-3]
    elif row[0] == "flying":
        key, numbers = (row[2], "in_flight"), row[5:7]
    elif row[0] == "adjustment":
        key, numbers = (row[2], "adjustment"), (1, row[6])
    else:
        return
    commands[key] += int(numbers[0])
    units[key] += int(numbers[1])


for line in source:
    head = line.rstrip("\n").split("\t")
    lines = [next(source, "").rstrip("\n") for _ in range(int(head[-1]) if head[-1].isdigit() else 0)]
    if head[0] == "tallygate export 1":
        horizon = head[3]  # hours before it are kept as days only
    elif head[0] == "epochs":
        epochs = {line.split("\t")[1]: line for line in lines}
        gaps = any(line.endswith(("\tmachine died", "\ttally missing")) for line in lines)
    elif head[0] == "seal":
        check_seal(head, lines)
    elif head[0] == "end":
        ended = int(head[1]) == seals
    for line in lines:
        add_up(line.split("\t"))
for (department, what), count in sorted(commands.items()):
    print(f"{department}\t{what}\t{count}\t{units[department, what]}")
for department in sorted({department for department, _ in commands}):
    for sums in (commands, units):
        if sums[department, "admitted"] != sum(sums[department, end] for end in ENDS) and not gaps:
            faults.append(f"{department}: what was admitted is not what ended and what is in flight")
if unvouched:
    faults.append(f"no day covers the seals {', '.join(unvouched)}, and their rows are not here")
faults += [f"no seal covers the end of epoch {epoch}" for epoch, line in epochs.items() if not line.endswith("\t-")]
if not horizon:
    faults.append("this is not an export of a form known here")
if not ended:
    faults.append("the export does not end with the number of its seals")
print(f"{seals} seals, head {number}:{previous}", *faults, sep="\n", file=sys.stderr)
sys.exit(1 if faults else 0)
