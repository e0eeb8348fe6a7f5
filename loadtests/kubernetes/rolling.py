#!/usr/bin/env python3
"""Pods of the gateway are replaced or killed under load of every protocol, and the books are balanced afterwards.

    tests/cluster/cluster enter /usr/bin/python3 $PWD/loadtests/kubernetes/rolling.py restart
    tests/cluster/cluster enter /usr/bin/python3 $PWD/loadtests/kubernetes/rolling.py upgrade
    tests/cluster/cluster enter /usr/bin/python3 $PWD/loadtests/kubernetes/rolling.py kill --kills 4

restart   `kubectl rollout restart`: no request and no echo may fail
upgrade   the same image under a second name, and `kubectl set image`: the same bar
kill      SIGKILL of the gateway's process in its pod, one pod after the other; the volumes stay. Requests in flight fail.
          The ledgers have every answered command as `ok`, and beside these only commands whose caller saw a failure
none      no event: a check of the load itself

Books: answers of the callers = requests at the servers = `ok` of the ledgers of all pods = `ok` of /metrics, for each kind
of traffic. Load and its rules: traffic.py. Two minutes each. Exit code 1: a bar is missed.
"""

import subprocess
import time

import gateway_pods
from cluster_api import Api, Bars, Site, arguments
from traffic import KINDS, Traffic

SETTLE = 5
FIRST_NAME, SECOND_NAME = "localhost/tallygate:0.1.0", "localhost/tallygate:second"


def restart(api, _given):
    gateway_pods.restart(api)
    gateway_pods.rolled_out(api)


def upgrade(api, _given):
    """To the second name, or back from it."""
    before = gateway_pods.image(api)
    if before != SECOND_NAME:
        subprocess.run(["ctr", "images", "tag", "--force", before, SECOND_NAME], check=True, stdout=subprocess.DEVNULL)
    gateway_pods.set_image(api, SECOND_NAME if before != SECOND_NAME else FIRST_NAME)
    gateway_pods.rolled_out(api)


def kill(api, given):
    names = list(gateway_pods.gateways())
    for turn in range(given.kills):
        gateway_pods.killed_and_ready_again(api, names[turn % len(names)], seconds=180)
        time.sleep(SETTLE)


def nothing(_api, _given):
    time.sleep(10)


def check_exact(bars, kind, books):
    """No failure, and the same number everywhere."""
    bars.equal(f"{kind}: failed", books["failed"], 0)
    numbers = [books[side] for side in ("answered", "servers", "ok", "metrics")]
    bars.equal(f"{kind}: callers, servers, ledgers, metrics", numbers, [books["answered"]] * 4)
    bars.equal(f"{kind}: other outcomes in the ledgers", books["others"], {})


def check_killed(bars, kind, books):
    """Nothing that was answered is lost, nothing is counted twice, and each difference is a command that has failed."""
    bars.check(f"{kind}: answered are in the ledgers", books["ok"] - books["answered"],
               0 <= books["ok"] - books["answered"] <= books["failed"], f"more by 0 to {books['failed']} failed ones")
    bars.equal(f"{kind}: answered without a server", books["not at servers"], 0)
    beside = books["ok"] + sum(books["others"].values()) - books["answered"]
    bars.check(f"{kind}: counted beside the answered", beside, 0 <= beside <= books["failed"],
               f"0 to {books['failed']} failed ones")
    bars.equal(f"{kind}: metrics", books["metrics"], books["ok"])


def main():
    parser = arguments(__doc__)
    parser.add_argument("what", choices=["restart", "upgrade", "kill", "none"])
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    site = Site(api, f"roll-{int(time.time())}")
    traffic = Traffic(site, given.kinds.split(","))
    traffic.start()
    time.sleep(SETTLE)
    begun = time.time()
    {"restart": restart, "upgrade": upgrade, "kill": kill, "none": nothing}[given.what](api, given)
    print(f"{given.what}: {time.time() - begun:.0f} s")
    time.sleep(SETTLE)
    traffic.stop()
    traffic.read_books()
    for kind in traffic.kinds:
        books = traffic.books(kind)
        traffic.show(kind, books)
        (check_killed if given.what == "kill" else check_exact)(bars, kind, books)
    site.remove()
    bars.end()


if __name__ == "__main__":
    main()
