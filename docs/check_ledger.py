#!/usr/bin/env python3
"""Checks an export of a Tallygate ledger with nothing but Python:

    tallygate ledger export --ledger data/ledger.db | python3 docs/check_ledger.py [--head NUMBER:HASH] [FILE]

Follows the chain, hashes what each seal covers again, looks whether hours were sealed in their order and no count is
negative, adds up what every department used and whether all of it ended; ends with 1 if anything differs. With a head that
was noted elsewhere it also looks whether the chain still holds it and nothing was added to hours before it, and says what
came after it. docs/ledger.md describes the text."""
import argparse
import datetime
import hashlib
import sys
from collections import Counter

ENDS = "ok client_error server_error unreachable upstream_failed timeout aborted interrupted in_flight".split()
options = argparse.ArgumentParser(description="Checks an export of a Tallygate ledger.")
options.add_argument("file", nargs="?", help="the export; standard input if there is none")
options.add_argument("--head", help="NUMBER:HASH of a seal, noted elsewhere", default="")
options = options.parse_args()
noted = options.head.lower().split(":")
source = open(options.file, encoding="utf-8", newline="\n") if options.file else sys.stdin
faults, commands, units, epochs, contents, unvouched = [], Counter(), Counter(), {}, {}, {}
previous, number, seals, ended, gaps, horizon = "0" * 64, 0, 0, False, False, ""
began, latest, of_epoch, ends, past, after, notes = {}, None, {}, {}, None, None, Counter()

def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

def seconds(text):
    moment = datetime.datetime.fromisoformat(text[:19]).replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp())

def over(at):
    return (seconds(at) - 60) // 3600  # the first hour that is not over by a minute

def ended_before(epoch, ends):
    return max((over(at) for number, at in ends.items() if number < int(epoch)), default=-1)

def check_order(this, epoch, window, sealed_at):
    """Hours are sealed in their order; docs/ledger.md says what a clock that was set back may do."""
    global latest
    hour = seconds(window) // 3600
    began_in = over(began[epoch]) if epoch in began else hour + 1
    follows = latest is None or hour > latest[0] or (hour, sealed_at) == latest[::2] and int(epoch) > latest[1]
    if epoch in of_epoch and hour <= of_epoch[epoch]:
        faults.append(f"seal {this}: epoch {epoch} had sealed a later hour than {window} before")
    elif past and (hour <= past[0] or hour < ended_before(epoch, past[1]) or hour < began_in):
        faults.append(f"seal {this}: it adds to {window}, an hour that was past when the head was noted")
    elif not follows or hour < ended_before(epoch, ends):
        if began_in <= hour < seconds(sealed_at) // 3600:
            notes[epoch] += 1  # the epoch says that its clock had been set back
        else:
            faults.append(f"seal {this}: {window} was over, or sealed, before it")
    of_epoch[epoch] = hour
    if latest is None or hour >= latest[0]:
        latest = (hour, int(epoch), sealed_at)

def check_seal(head, lines):
    global previous, number, seals, past, after
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
    if kind == "hour":
        check_order(this, epoch, window, sealed_at)
    if kind == "epoch":
        ends[int(epoch)] = sealed_at
    if after is not None:
        after.update(["seals", kind])
    if this == noted[0]:
        past, after = (latest[0] if latest else -1, dict(ends)), Counter()
        if digest != noted[-1]:
            faults.append(f"seal {this}: its hash is not the one that was noted: this is another chain")
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
    counts = row[4:] if row[0] in ("admission", "waived") else row[5:]
    if row[0] in ("admission", "usage", "day", "flying", "waived") and any(count.startswith("-") for count in counts):
        faults.append("a count is negative: " + " ".join(row))
    if row[0] == "admission":
        key, numbers = (row[1], "admitted"), row[4:6]
    elif row[0] in ("usage", "day"):
        key, numbers = (row[1], row[4]), row[-5:-3]
    elif row[0] == "waived":
        key, numbers = (row[1], "waived"), row[5:7]
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
        began = {line.split("\t")[1]: line.split("\t")[5] for line in lines}
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
    for sums, ends in (commands, ENDS), (units, ENDS + ["waived"]):  # waived commands are among those that ended
        if sums[department, "admitted"] != sum(sums[department, end] for end in ends) and not gaps:
            faults.append(f"{department}: what was admitted is not what ended and what is in flight")
if options.head and after is None:
    faults.append(f"seal {noted[0]} was noted and is not there: the chain's end was cut off")
if unvouched:
    faults.append(f"no day covers the seals {', '.join(unvouched)}, and their rows are not here")
faults += [f"no seal covers the end of epoch {epoch}" for epoch, line in epochs.items() if not line.endswith("\t-")]
if not horizon:
    faults.append("this is not an export of a form known here")
if not ended:
    faults.append("the export does not end with the number of its seals")
for epoch, hours in notes.items():
    print(f"epoch {epoch} began with a clock that had been set back: {hours} hours after later ones", file=sys.stderr)
if after is not None:
    print("after the noted head:", ", ".join(f"{n} {kind}" for kind, n in after.items()) or "nothing", file=sys.stderr)
print(f"{seals} seals, head {number}:{previous}", *faults, sep="\n", file=sys.stderr)
sys.exit(1 if faults else 0)
