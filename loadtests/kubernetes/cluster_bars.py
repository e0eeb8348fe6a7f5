#!/usr/bin/env python3
"""How soon changes of routes and endpoints reach traffic, measured from inside the network of a test cluster.

    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/cluster_bars.py routes 3000
    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/cluster_bars.py routes 5000 --changing 50
    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/cluster_bars.py endpoints 50

routes N       makes N HTTPRoutes, then 100 more one after the other. For each of these: the time from the answer of the
               API server to the first 200, and every answer that is neither 404 before nor 200 after. It asks every
               millisecond: without a pause the script takes a whole core of the machine that it measures.
               A watch of the script's own shows when the API server delivers each of them: the least time for any controller.
--changing R   meanwhile R of the N routes change each second, one after the other: a header filter has another value.
endpoints R    a Service with two servers, of which one is removed from the EndpointSlice and added again, 60 times, while
               R other EndpointSlices change each second. For each removal: the time from the answer of the API server to
               the end of the last request that reached the removed server.

The servers are threads of this script on the node's address, the load is one keep-alive connection for each of four
threads. Only addresses of the cluster are called, for a bounded number of requests. Python's standard library only.
Exit code 1: a bar is missed.
"""

import threading
import time

from cluster_api import GATEWAY_API, Api, Bars, Caller, Server, Site, Watch, arguments, is_live, summary, until

NAMESPACE = "bars"
LOADERS = 4
NEW_ROUTES = 100
REMOVALS = 60
POLL = 0.001
BAR_MS = 50


class Delivery:
    """When a watch first shows each object of a list."""

    def __init__(self, api, path):
        self.watch = Watch(api, path, api.items(path)[1])
        self.first = {}

    def time(self, name):
        while name not in self.first:
            for arrival, event in self.watch.taken():
                self.first.setdefault(event["object"]["metadata"]["name"], arrival)
            time.sleep(POLL)
        return self.first[name]


class Churn:
    """Changes at a steady rate, in a thread."""

    def __init__(self, rate, change):
        self.rate, self.change, self.turn, self.stopping = rate, change, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.begun = time.time()
        if rate:
            self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            self.change(self.turn)
            self.turn += 1
            time.sleep(max(0.0, self.begun + self.turn / self.rate - time.time()))

    def stop(self):
        self.stopping.set()
        if self.rate:
            self.thread.join()
            print(f"other changes a second: {self.turn / (time.time() - self.begun):.1f}")


def measure_routes(site, address, count, changing):
    routes = site.path(GATEWAY_API, "v1", "httproutes")
    Server(9001)
    site.service("shop")
    begun = time.time()
    site.api.each(count, lambda number: site.route(f"base-{number}", f"base-{number}.example", "shop"))
    print(f"{count} routes created in {time.time() - begun:.1f} s")
    for number in (0, count // 2, count - 1):
        until("all routes answer", lambda: is_live(address, f"base-{number}.example"))
    caller = Caller(address)
    time.sleep(5)  # statuses are written

    def change(turn):
        header = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "turn", "value": str(turn)}]}}
        rule = {"filters": [header], "backendRefs": [{"name": "shop", "port": 80}]}
        site.api.merge(f"{routes}/base-{turn % count}", {"spec": {"rules": [rule]}})

    delivery = Delivery(site.api, routes)
    churn = Churn(changing, change)
    times, delivered, wrong = [], [], 0
    for number in range(NEW_ROUTES):
        host = f"new-{time.time_ns()}.example"
        wrong += caller.status(host) != 404
        site.route(f"new-{number}", host, "shop")
        begun = time.time()
        while (status := caller.status(host)) != 200:
            wrong += status != 404
            if time.time() - begun > 30:
                raise SystemExit(f"{host} does not answer within 30 s")
            time.sleep(POLL)
        times.append((time.time() - begun) * 1000)
        delivered.append(max(0.0, delivery.time(f"new-{number}") - begun) * 1000)
        if times[-1] > BAR_MS:
            print(f"route {number} after {times[-1]:.0f} ms, delivered after {delivered[-1]:.0f} ms, from {begun:.3f}")
        wrong += sum(caller.status(host) != 200 for _ in range(5))
    churn.stop()
    delivery.watch.stop()
    bars = Bars()
    ours = [total - least for total, least in zip(times, delivered)]
    summary("the API server delivers it to a watch", delivered)
    summary("from there until it answers", ours)
    p99 = summary(f"a new route answers, {count} routes, {changing} changes a second", times)
    bars.at_most("a new route answers, p99", p99, BAR_MS, " ms")
    bars.equal("wrong answers", wrong, 0)
    bars.end()


def measure_endpoints(site, address, rate):
    kept, removed = Server(9001), Server(9002)
    site.service("pair", servers=(9001, 9002))
    site.route("pair", "pair.example", "pair")
    others = [f"other-{number}" for number in range(50)]
    for name in others:
        site.service(name)
    stopping, failed, sent = threading.Event(), [0], [0]

    def load():
        caller = Caller(address)
        while not stopping.is_set():
            failed[0] += caller.status("pair.example") != 200
            sent[0] += 1

    def change(turn):
        name = others[turn % len(others)]
        site.slice(name, (9001, 9002)[turn // len(others) % 2], name=f"{name}-9001")

    until("the route answers", lambda: is_live(address, "pair.example"))
    threads = [threading.Thread(target=load) for _ in range(LOADERS)]
    for thread in threads:
        thread.start()
    churn = Churn(rate, change)
    times = []
    for _ in range(REMOVALS):
        time.sleep(0.3)
        before = removed.requests
        site.slice("pair", 9002, addresses=())
        begun = time.time()
        time.sleep(0.8)
        if removed.requests > before:
            times.append(max(0.0, removed.last - begun) * 1000)
        site.slice("pair", 9002)
    churn.stop()
    stopping.set()
    for thread in threads:
        thread.join()
    bars = Bars()
    p99 = summary(f"last request at a removed endpoint, {rate} other changes a second", times)
    print(f"requests: {sent[0]}, at the kept server: {kept.requests}")
    bars.at_most("last request at a removed endpoint, p99", p99, BAR_MS, " ms")
    bars.equal("failed", failed[0], 0)
    bars.end()


def main():
    parser = arguments(__doc__)
    parser.add_argument("what", choices=["routes", "endpoints"])
    parser.add_argument("number", type=int)
    parser.add_argument("--changing", type=int, default=0)
    given = parser.parse_args()
    site = Site(Api(given.kubeconfig), NAMESPACE)
    address = site.gateway()
    if given.what == "routes":
        measure_routes(site, address, given.number, given.changing)
    else:
        measure_endpoints(site, address, given.number)


if __name__ == "__main__":
    main()
