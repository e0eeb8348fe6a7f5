#!/usr/bin/env python3
"""Checks an export of a Tallygate ledger with nothing but Python:

    tallygate ledger export --ledger data/ledger.db | python3 docs/check_ledger.py

Follows the chain, hashes the rows below each seal again, adds up what every department used; ends with 1 if
anything differs. docs/ledger.md describes the text."""
import hashlib
import sys
from collections import Counter

source = open(sys.argv[1], encoding="utf-8", newline="\n") if len(sys.argv) > 1 else sys.stdin
faults, sums = [], Counter()
previous, number, seals, ended = "0" * 64, 0, 0, False

def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

def check_seal(head, lines):
    global previous, number, seals
    _, this, version, kind, epoch, window, count, content, before, digest, sealed_at, _ = head
    if int(this) != number + 1 or before != previous:
        faults.append(f"seal {this} does not follow seal {number}")
    if lines or int(count) == 0:
        if len(lines) != int(count) or sha256("".join(line + "\n" for line in lines)) != content:
            faults.append(f"seal {this} ({kind} {window}): its rows are not those that were sealed")
    elif kind != "hour" or window >= horizon:
        faults.append(f"seal {this} ({kind}): its rows are gone")
    if version == "1":
        text = f"tallygate seal 1\n{this}\n{epoch}\n{window}\n{before}\n" + "".join(line + "\n" for line in lines)
    else:
        fields = (this, kind, epoch, window, count, content, before, sealed_at)
        text = "tallygate seal 2\n" + "".join(field + "\n" for field in fields)
    if (lines or version != "1") and sha256(text) != digest:
        faults.append(f"seal {this}: its hash is not that of its fields")
    previous, number, seals = digest, int(this), seals + 1

def add_up(lines):
    for row in (line.split("\t") for line in lines):
        if row[0] == "usage" or row[0] == "day" and row[4] != "admitted":
            sums[row[1], row[4]] += int(row[-5])


for line in source:
    head = line.rstrip("\n").split("\t")
    lines = [next(source, "").rstrip("\n") for _ in range(int(head[-1]))]
    if head[0] == "tallygate export 1":
        horizon = head[3]  # hours before it are kept as days only
    elif head[0] == "seal":
        check_seal(head, lines)
    elif head[0] == "end":
        ended = int(head[1]) == seals
    if head[0] in ("seal", "open"):
        add_up(lines)
for (department, outcome), commands in sorted(sums.items()):
    print(f"{department}\t{outcome}\t{commands}")
if not ended:
    faults.append("the export does not end with the number of its seals")
print(f"{seals} seals, head {number}:{previous}", *faults, sep="\n", file=sys.stderr)
sys.exit(1 if faults else 0)
