#!/usr/bin/env python3
"""The API server is stopped for minutes under traffic of every protocol: nothing fails, and then the controller goes on.

    tests/cluster/cluster enter /usr/bin/python3 $PWD/loadtests/kubernetes/api_away.py 600
    tests/cluster/cluster enter /usr/bin/python3 $PWD/loadtests/kubernetes/api_away.py 0 --start

1. Traffic (traffic.py). SIGSTOP of the API server for that time, then SIGCONT, which is sent however the script ends.
2. After that: a new route answers, a changed one too, a removed endpoint gets no requests, one pod leads.
3. Books as in rolling.py: no failed request, and the same numbers at callers, servers, ledgers and metrics.

--start  instead: the process of a pod is killed while the API server is stopped. It must serve its last good configuration: from the
         moment it accepts until after the API server is back, every answer is 200.

Exit code 1: a bar is missed.
"""

import os
import signal
import time

import gateway_pods
from cluster_api import Api, Bars, Server, Site, arguments, is_accepted, is_live, until
from many_routes import Poller
from rolling import check_exact
from traffic import KINDS, Traffic

RECOVERY_SECONDS = 60
ROUTES = 50
LAST_GOOD_SECONDS = 35  # the last good configuration is written at most every 30 s


def stopped(seconds):
    pid = gateway_pods.api_server()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def check_recovery(site, bars):
    """Times from SIGCONT on. The API server itself needs some seconds."""
    begun = time.time()
    api = Api(os.environ["KUBECONFIG"])  # connections from before may have ended
    site.api = api
    Server(9021)
    site.service("late", (9021,))
    site.route("late", "late.example", "late")
    made = time.time()
    address = site.address()
    until("a new route answers", lambda: is_live(address, "late.example"), RECOVERY_SECONDS)
    print(f"objects are made {made - begun:.1f} s after SIGCONT, and answer {time.time() - made:.2f} s later")
    site.route("late", "later.example", "late")
    until("a changed route answers", lambda: is_live(address, "later.example"), RECOVERY_SECONDS)
    until("its status is right", lambda: is_accepted(site.api.get(f"{site.routes}/late")), RECOVERY_SECONDS)
    bars.at_most("statuses are right after SIGCONT", time.time() - begun, RECOVERY_SECONDS, " s")
    until("one pod leads", lambda: gateway_pods.metric_sum(api, "tallygate_kube_leader") == 1, RECOVERY_SECONDS)
    for name, address in gateway_pods.addresses(api).items():
        until(f"all watches of {name} are live",
              lambda: all(value == 1 for series, value in gateway_pods.metrics(address).items()
                          if series.startswith("tallygate_kube_watch_state{") and 'state="live"' in series), RECOVERY_SECONDS, 0.5)
    print(f"watches and lease are in order {time.time() - begun:.1f} s after SIGCONT")


def start_without_api(api, bars):
    """A start from the last good configuration, and the change to that of the cluster."""
    site = Site(api, f"start-{int(time.time())}")
    Server(9022)
    address = site.gateway()
    site.service("web", (9022,))
    hosts = [f"route-{number}.example" for number in range(ROUTES)]
    for number, host in enumerate(hosts):
        site.route(f"route-{number}", host, "web")
    until("the routes answer", lambda: all(is_live(address, host) for host in hosts))
    time.sleep(LAST_GOOD_SECONDS)
    name, process = next(iter(gateway_pods.gateways().items()))
    pod = gateway_pods.addresses(api)[name]
    port, pid = site.target_port(80), gateway_pods.api_server()
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.time()
        process.kill()
        time.sleep(0.2)
        poller = Poller(hosts, pod, port)
        until("the pod answers", lambda: poller.first_answer, 120)
        print(f"{name} answers {poller.first_answer - begun:.1f} s after it was killed, without the API server")
        until("the pod is ready", lambda: gateway_pods.admin(pod, "/readyz")[0] == 200, 120)
        served = gateway_pods.metrics(pod).get("tallygate_kube_last_good_served")
        bars.equal("it serves its last good configuration", served, 1.0)
        time.sleep(10)
    finally:
        os.kill(pid, signal.SIGCONT)
    until("the configuration of the cluster is served",
          lambda: gateway_pods.metrics(pod).get("tallygate_kube_last_good_served") == 0.0, RECOVERY_SECONDS, 0.2)
    time.sleep(5)
    print(f"answers: {poller.stop()}")
    bars.equal("wrong answers", poller.wrong(), 0)
    Api(os.environ["KUBECONFIG"]).call("DELETE", f"/api/v1/namespaces/{site.namespace}")


def main():
    parser = arguments(__doc__)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--start", action="store_true")
    given = parser.parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    if given.start:
        start_without_api(api, bars)
        bars.end()
    site = Site(api, f"away-{int(time.time())}")
    traffic = Traffic(site, KINDS)
    traffic.start()
    time.sleep(5)
    stopped(given.seconds)
    check_recovery(site, bars)
    time.sleep(60)  # what the cluster does after the pause, such as nodes that were not heard of
    traffic.stop()
    traffic.read_books()
    for kind in traffic.kinds:
        books = traffic.books(kind)
        traffic.show(kind, books)
        check_exact(bars, kind, books)
    site.remove()
    bars.end()


if __name__ == "__main__":
    main()
