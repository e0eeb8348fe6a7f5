#!/usr/bin/env python3
"""The bars of the Kubernetes controller, measured from inside the network of a test cluster.

    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/cluster_bars.py routes 3000
    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/cluster_bars.py endpoints 50

routes N       makes N HTTPRoutes, then 100 more one after the other. For each of these: the time from the answer of the
               API server to the first 200, and every answer that is neither 404 before nor 200 after.
endpoints R    a Service with two servers, of which one is removed from the EndpointSlice and added again, 60 times, while
               R other EndpointSlices change each second. For each removal: the time from the answer of the API server to
               the end of the last request that reached the removed server.

The servers are threads of this script on the node's address, the load is one keep-alive connection for each of four
threads. Only addresses of the cluster are called, for a bounded number of requests. Python's standard library only.
"""

import argparse
import base64
import http.client
import http.server
import json
import os
import re
import ssl
import statistics
import tempfile
import threading
import time

NODE = "10.77.0.1"
CLASS = "tallygate"
NAMESPACE = "bars"
LOADERS = 4
WAIT = 60


class Api:
    """The API server, by the certificate of a kubeconfig. One connection for each thread."""

    def __init__(self, kubeconfig):
        with open(kubeconfig, encoding="utf-8") as written:
            text = written.read()

        def field(name):  # in YAML or in JSON
            found = re.search(rf'"?{name}"?:\s*"?([^\s",}}]+)', text)
            if not found:
                raise KeyError(name)
            return found.group(1)

        self.address = field("server").split("://")[1]
        self.context = ssl.create_default_context()
        with tempfile.TemporaryDirectory() as folder:
            paths = {}
            for name in ("certificate-authority", "client-certificate", "client-key"):
                try:
                    paths[name] = field(name)
                except KeyError:
                    paths[name] = os.path.join(folder, name)
                    with open(paths[name], "wb") as out:
                        out.write(base64.b64decode(field(name + "-data")))
            self.context.load_verify_locations(paths["certificate-authority"])
            self.context.load_cert_chain(paths["client-certificate"], paths["client-key"])
        self.local = threading.local()

    def call(self, method, path, body=None, kind="application/json"):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=WAIT)
        text = None if body is None else json.dumps(body)
        self.local.connection.request(method, path, text, {"Content-Type": kind})
        response = self.local.connection.getresponse()
        read = response.read()
        if response.status >= 300 and response.status not in (404, 409):
            raise SystemExit(f"{method} {path}: {response.status} {read[:300]}")
        return response.status, json.loads(read) if read else None

    def apply(self, path, body):
        name = body["metadata"]["name"]
        kind = "application/apply-patch+yaml"
        return self.call("PATCH", f"{path}/{name}?fieldManager=bars&force=true", body, kind)


GATEWAYS = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"


def gateway(api):
    """The Gateway with its address."""
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    api.apply(f"{GATEWAYS}/gateways", {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "web"},
        "spec": {"gatewayClassName": CLASS, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}})
    end = time.time() + WAIT
    while time.time() < end:
        _, found = api.call("GET", f"{GATEWAYS}/gateways/web")
        addresses = found.get("status", {}).get("addresses")
        if addresses:
            return addresses[0]["value"]
        time.sleep(0.1)
    raise SystemExit("the Gateway has no address")


def service(api, name, servers):
    api.apply(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                         "spec": {"ports": [{"port": 80}]}})
    endpoints(api, name, servers)


def endpoints(api, name, ports):
    """One slice for each port: an EndpointSlice has one port for all its addresses."""
    for port in (9001, 9002):
        ready = [{"addresses": [NODE], "conditions": {"ready": True}}] if port in ports else []
        api.apply(SLICES, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{name}-{port}", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "", "port": port, "protocol": "TCP"}], "endpoints": ready})


def route(api, name, host, backend):
    return api.apply(f"{GATEWAYS}/httproutes", {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": "web"}], "hostnames": [host],
                 "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]}})


class Server:
    """A server on the node. `last` is the time at which it answered last."""

    def __init__(self, port):
        self.last, self.requests = 0.0, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.last, outer.requests = time.time(), outer.requests + 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer((NODE, port), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


class Caller:
    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=WAIT)

    def status(self, host):
        self.connection.request("GET", "/", headers={"Host": host})
        response = self.connection.getresponse()
        response.read()
        return response.status


def summary(what, milliseconds):
    milliseconds.sort()
    at = lambda share: milliseconds[min(len(milliseconds) - 1, int(len(milliseconds) * share))]
    print(f"{what}: n={len(milliseconds)} p50={statistics.median(milliseconds):.0f} ms p90={at(0.9):.0f} ms "
          f"p99={at(0.99):.0f} ms max={milliseconds[-1]:.0f} ms")


def measure_routes(api, address, count):
    Server(9001)
    service(api, "shop", [9001])
    begun = time.time()
    for number in range(count):
        route(api, f"base-{number}", f"base-{number}.example", "shop")
    print(f"{count} routes created in {time.time() - begun:.1f} s")
    caller = Caller(address)
    end = time.time() + WAIT
    while time.time() < end and caller.status(f"base-{count - 1}.example") != 200:
        time.sleep(0.01)
    time.sleep(5)  # statuses are written
    times, wrong = [], 0
    for number in range(100):
        host = f"new-{time.time_ns()}.example"
        if caller.status(host) != 404:
            wrong += 1
        route(api, f"new-{number}", host, "shop")
        begun = time.time()
        while True:
            status = caller.status(host)
            if status == 200:
                break
            wrong += status != 404
        times.append((time.time() - begun) * 1000)
        wrong += sum(caller.status(host) != 200 for _ in range(5))
    summary(f"a new route answers, {count} routes", times)
    print(f"wrong answers: {wrong}")


def measure_endpoints(api, address, rate):
    kept, removed = Server(9001), Server(9002)
    service(api, "pair", [9001, 9002])
    route(api, "pair", "pair.example", "pair")
    others = [f"other-{number}" for number in range(50)]
    for name in others:
        service(api, name, [9001])
    stopping, failed, sent = threading.Event(), [0], [0]

    def load():
        caller = Caller(address)
        while not stopping.is_set():
            failed[0] += caller.status("pair.example") != 200
            sent[0] += 1

    def churn():
        turn = 0
        begun = time.time()
        while not stopping.is_set():
            name = others[turn % len(others)]
            port = (9001, 9002)[turn // len(others) % 2]
            api.apply(SLICES, {
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": f"{name}-9001", "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [NODE], "conditions": {"ready": True}}]})
            turn += 1
            time.sleep(max(0.0, begun + turn / rate - time.time()))
        print(f"other changes a second: {turn / (time.time() - begun):.0f}")

    caller = Caller(address)
    end = time.time() + WAIT
    while time.time() < end and caller.status("pair.example") != 200:
        time.sleep(0.02)
    threads = [threading.Thread(target=load) for _ in range(LOADERS)]
    threads += [threading.Thread(target=churn)] if rate else []
    for thread in threads:
        thread.start()
    times = []
    for _ in range(60):
        time.sleep(0.3)
        before = removed.requests
        endpoints(api, "pair", [9001])
        begun = time.time()
        time.sleep(0.8)
        if removed.requests > before:
            times.append(max(0.0, removed.last - begun) * 1000)
        endpoints(api, "pair", [9001, 9002])
    stopping.set()
    for thread in threads:
        thread.join()
    summary(f"last request at a removed endpoint, {rate} other changes a second", times)
    print(f"requests: {sent[0]}, failed: {failed[0]}, at the kept server: {kept.requests}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what", choices=["routes", "endpoints"])
    arguments.add_argument("number", type=int)
    arguments.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"), required="KUBECONFIG" not in os.environ)
    given = arguments.parse_args()
    api = Api(given.kubeconfig)
    address = gateway(api)
    {"routes": measure_routes, "endpoints": measure_endpoints}[given.what](api, address, given.number)


if __name__ == "__main__":
    main()
