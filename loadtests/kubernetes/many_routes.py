#!/usr/bin/env python3
"""Memory, processor time, series and starts with thousands of routes and endpoints in 50 namespaces.

    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/many_routes.py 5000

1. N routes of 50 namespaces, with N endpoints: 10 for each Service, 10 routes to each Service. Memory of each pod's process:
   at rest, and the peak while they were made. Processor time over 60 s at rest. Series of /metrics.
2. Start: the process of a pod is killed; from the moment its listener accepts, every answer must be 200: all hosts are
   asked in turn, on new connections. The same again with a pod that is deleted, and the same through the Service while
   all pods are replaced.
3. Half of the routes and endpoints are deleted: memory falls.

Endpoints have addresses of their own; inside the cluster's network namespace all of them are the node, where a server of this
script answers. Namespaces are removed at the end, unless `--keep`. Exit code 1: a bar is missed. Standard library only.
"""

import collections
import http.client
import threading
import time

import gateway_pods
from cluster_api import (Api, Bars, Server, Site, arguments, claim_endpoint_addresses, endpoint_address, is_live, until)

NAMESPACES = 50
SHARE = 10  # endpoints of a Service, and routes to it
MEMORY_MIB = 128
CPU_PERCENT = 1
REST_SECONDS = 60
SERIES = 100_500  # `capacity.series` for each of four families of usage, once for the measurements, and the fixed ones


class Many:
    """The objects."""

    def __init__(self, api, count):
        self.api, self.count = api, count
        self.hosts = [self.host(number) for number in range(count)]
        self.main = Site(api, "many")
        listeners = [{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]
        self.address = self.main.gateway(listeners=listeners)
        self.sites = [Site(api, f"many-{number:02}") for number in range(NAMESPACES)]

    def site(self, number):
        return self.sites[number // SHARE % NAMESPACES]

    def host(self, number):
        return f"route-{number}.example"

    def make_service(self, number):
        addresses = [endpoint_address(number * SHARE + place) for place in range(SHARE)]
        self.site(number * SHARE).service(f"shop-{number}", addresses=addresses)

    def make_route(self, number):
        parent = {"name": "web", "namespace": "many"}
        self.site(number).route(f"route-{number}", self.host(number), f"shop-{number // SHARE}", parent)

    def make(self):
        begun = time.time()
        self.api.each(self.count // SHARE, self.make_service)
        self.api.each(self.count, self.make_route)
        print(f"{self.count} routes, {self.count // SHARE} Services with {self.count} endpoints, made in {time.time() - begun:.0f} s")
        self.wait_until_live(range(0, self.count, max(1, self.count // 50)))

    def wait_until_live(self, numbers):
        for address, port in self.pods():
            for number in numbers:
                until(f"{self.host(number)} answers", lambda: is_live(f"{address}:{port}", self.host(number), 1), 120)

    def pods(self):
        port = self.main.target_port(80)
        return [(address, port) for address in gateway_pods.addresses(self.api).values() if address]

    def delete_half(self):
        def delete(number):
            self.api.call("DELETE", f"{self.site(number).routes}/route-{number}")

        def delete_service(number):
            site = self.site(number * SHARE)
            self.api.call("DELETE", f"{site.slices}/shop-{number}-9001")
            self.api.call("DELETE", f"{site.services}/shop-{number}")
        self.api.each(self.count // 2, delete)
        self.api.each(self.count // SHARE // 2, delete_service)

    def remove(self):
        for site in [*self.sites, self.main]:
            site.remove()


def memory(bars, what, bar=None):
    """Prints resident memory and peak of each pod. Returns the largest resident one."""
    most = 0
    for name, process in gateway_pods.gateways().items():
        resident, peak = process.memory_mib()
        most = max(most, resident)
        print(f"{what}: {name} {resident:.0f} MiB, peak {peak:.0f} MiB", flush=True)
        if bar:
            bars.at_most(f"memory at rest, {name}", resident, bar, " MiB")
    return most


def cpu(bars):
    found = {name: [process, process.cpu_seconds()] for name, process in gateway_pods.gateways().items()}
    time.sleep(REST_SECONDS)
    for name, (process, before) in found.items():
        percent = (process.cpu_seconds() - before) / REST_SECONDS * 100
        bars.at_most(f"processor at rest, {name}", percent, CPU_PERCENT, " % of a core")


def series(api, bars):
    for name, address in gateway_pods.addresses(api).items():
        found = gateway_pods.metrics(address)
        families = collections.Counter(series.split("{")[0] for series in found)
        print(f"largest families of {name}: {families.most_common(4)}")
        bars.at_most(f"series in /metrics, {name}", len(found), SERIES)


class Poller:
    """Asks all hosts in turn, each on a new connection, and counts the answers by status."""

    def __init__(self, hosts, address, port):
        self.hosts, self.address, self.port = hosts, address, port
        self.answers, self.first_answer, self.stopping = collections.Counter(), None, threading.Event()
        self.first_wrong = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        turn = 0
        while not self.stopping.is_set():
            host = self.hosts[turn % len(self.hosts)]
            answer = self.ask(host)
            self.answers[answer] += 1
            if isinstance(answer, int):
                turn += 7  # a step without a common divisor with the number of hosts
                self.first_answer = self.first_answer or time.time()
                if answer != 200 and not self.first_wrong:
                    self.first_wrong = (time.time(), answer, host)
            else:
                time.sleep(0.002)

    def ask(self, host):
        connection = http.client.HTTPConnection(self.address, self.port, timeout=5)
        try:
            connection.request("GET", "/", headers={"Host": host, "Connection": "close"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as fault:
            return type(fault).__name__
        finally:
            connection.close()

    def stop(self):
        self.stopping.set()
        self.thread.join()
        return dict(self.answers)

    def wrong(self):
        return sum(many for answer, many in self.answers.items() if isinstance(answer, int) and answer != 200)


def start_after_kill(many, bars):
    name, process = next(iter(gateway_pods.gateways().items()))
    address = gateway_pods.addresses(many.api)[name]
    poller = Poller(many.hosts, address, many.main.target_port(80))
    time.sleep(1)
    begun = time.time()
    process.kill()
    poller.answers.clear()
    poller.first_answer = None
    until("the process is started again", lambda: name in gateway_pods.gateways() and
          gateway_pods.gateways()[name].pid != process.pid, 120)
    started = time.time()
    until("the pod is ready", lambda: gateway_pods.admin(address, "/readyz")[0] == 200, 120)
    ready = time.time()
    time.sleep(5)
    print(f"killed {name}: process after {started - begun:.1f} s, first answer {(poller.first_answer or 0) - started:.1f} s later, "
          f"ready {ready - started:.1f} s after the start of the process; answers: {poller.stop()}")
    bars.equal("wrong answers after a kill", poller.wrong(), 0)
    if poller.first_wrong:
        print(f"first wrong answer: {poller.first_wrong[0] - started:.2f} s after the start of the process: {poller.first_wrong[1:]}")


def start_after_delete(many, bars):
    name = list(gateway_pods.gateways())[-1]
    before = gateway_pods.pod(many.api, name)["metadata"]["uid"]
    many.api.call("DELETE", f"{gateway_pods.PODS}/{name}")

    def new_address():
        found = gateway_pods.pod(many.api, name)
        return found and found["metadata"]["uid"] != before and found["status"].get("podIP")
    address = until("the new pod has an address", new_address, 180)
    poller = Poller(many.hosts, address, many.main.target_port(80))
    until("the pod is ready", lambda: gateway_pods.admin(address, "/readyz")[0] == 200, 120)
    time.sleep(3)
    print(f"deleted {name}: answers of the new pod: {poller.stop()}")
    bars.equal("wrong answers of a new pod", poller.wrong(), 0)
    gateway_pods.rolled_out(many.api)


def roll(many, bars):
    poller = Poller(many.hosts, many.address, 80)
    gateway_pods.restart(many.api)
    gateway_pods.rolled_out(many.api)
    answers = poller.stop()
    print(f"all pods replaced: answers through the Service: {answers}")
    bars.equal("failed or wrong through the Service", sum(answers.values()) - answers.get(200, 0), 0)


def main():
    parser = arguments(__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--no-starts", action="store_true")
    given = parser.parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    claim_endpoint_addresses()
    Server(9001, "0.0.0.0")
    memory(bars, "before")
    for process in gateway_pods.gateways().values():
        process.forget_peak()
    many = Many(api, given.count)
    many.make()
    time.sleep(REST_SECONDS)
    full = memory(bars, f"{given.count} routes", MEMORY_MIB)
    cpu(bars)
    series(api, bars)
    if not given.no_starts:
        start_after_kill(many, bars)
        start_after_delete(many, bars)
        roll(many, bars)
        time.sleep(REST_SECONDS)
        full = memory(bars, "after the starts", MEMORY_MIB)
    many.delete_half()
    time.sleep(REST_SECONDS)
    half = memory(bars, "half of them deleted")
    bars.check("memory after half is deleted", f"{half:.0f} MiB", half < full, f"below {full:.0f} MiB")
    if not given.keep:
        many.remove()
    bars.end()


if __name__ == "__main__":
    main()
