#!/usr/bin/env python3
"""Checks a ledger without trusting Tallygate: tallygate ledger export --ledger DB | python3 check_ledger.py [FILE]

Computes every content hash, the chain and the sums of each department again from an export (docs/ledger.md) and prints
them. Exit code 1 if anything is not as the export says."""
import collections, hashlib, sys
FINISHED = "ok client_error server_error unreachable upstream_failed timeout aborted interrupted".split()
COLUMNS = "admitted units finished finished_units refused in_flight in_flight_units bytes_in bytes_out adjusted".split()
problems, sums, unvouched, contents = [], collections.defaultdict(collections.Counter), {}, {}
number, head, book, end, gaps, seal, rows = 0, "0" * 64, [""] * 6, [], False, None, []

def expect(is_so, what): problems.extend([] if is_so else [what])
def sha256(text): return hashlib.sha256(text.encode()).hexdigest()
def count(word, *fields):
    if word == "adjustment": sums[fields[1]].update(adjusted=int(fields[5]))
    elif word == "admission": sums[fields[0]].update(admitted=int(fields[3]), units=int(fields[4]))
    elif word == "in_flight": sums[fields[2]].update(in_flight=int(fields[5]), in_flight_units=int(fields[6]))
    elif word in ("usage", "day"):
        department, outcome, (commands, units, into, out, _) = fields[0], fields[3], map(int, fields[-5:])
        if outcome == "admitted": sums[department].update(admitted=commands, units=units)
        elif outcome not in FINISHED: sums[department].update(refused=commands)
        else: sums[department].update(finished=commands, finished_units=units, bytes_in=into, bytes_out=out)

def check_seal(named, form, kind, epoch, window, lines, content, previous, said, at):
    text, rolled = "".join(row + "\n" for row in rows), kind == "hour" and window < book[5]
    expect(int(named) == number, f"seal {named}: it should be number {number}")
    expect(previous == head, f"seal {named}: it does not follow the seal before it")
    expect(rolled or (len(rows) == int(lines) and sha256(text) == content), f"seal {named}: not the rows it covers")
    fields = ["tallygate seal 2", named, kind, epoch, window, lines, content, previous, at, ""]
    old = f"tallygate seal 1\n{named}\n{epoch}\n{window}\n{previous}\n{text}"  # needs its rows, whose seal 2 needs not
    made = sha256("\n".join(fields)) if form != "1" else said if rolled else sha256(old)
    expect(made == said, f"seal {named}: its hash is {made}, it says {said}")
    contents[named] = content
    if rolled: unvouched[named] = said  # its rows are gone, so the seal of its day must cover it
    for _, covered, value in (row.split("\t") for row in rows if row.startswith("seal\t")):
        known = contents.get(covered) if kind == "migration" else unvouched.pop(covered, None)
        expect(known == value, f"seal {named}: it covers seal {covered} as another than it is")

title, *export = (open(sys.argv[1], newline="\n") if sys.argv[1:] else sys.stdin).read().removesuffix("\n").split("\n")
expect(title == "tallygate export 1", "this is not an export of a form known here")
for word, *fields in (line.split("\t") for line in export + ["stop"]):
    if seal and (word in ("open", "in_flight", "end", "stop") or (word == "seal" and len(fields) == 10)):
        number += 1
        check_seal(*seal)
        head, seal, rows = seal[8], None, []
    if word == "book": book = fields
    elif word == "epoch": gaps |= fields[7] in ("machine died", "tally missing")
    elif word == "seal" and len(fields) == 10: seal = fields
    elif word == "end": end = fields
    else: rows.append("\t".join([word, *fields])), count(word, *fields)
expect(book[3:5] == [str(number), head if number else "-"], "the chain does not end where the book says that it does")
expect(end == [str(number), str(len(export))], "the export is not whole")
expect(not unvouched, f"no day covers the seals {', '.join(unvouched)}, and their rows are not here")
print("department", *COLUMNS, sep="\t")
for department, row in sorted(sums.items()):
    print(department, *(row[column] for column in COLUMNS), sep="\t")
    ends = [row["finished"] + row["in_flight"], row["finished_units"] + row["in_flight_units"]]
    expect(gaps or ends == [row["admitted"], row["units"]], f"{department}: admitted is not finished + in flight")
print(f"head\t{number}:{head}", *(f"DIFFERENT\t{problem}" for problem in problems), sep="\n")
sys.exit(1 if problems else 0)
