"""What the scripts of this folder share: the API server, the objects of a Gateway, servers and callers on the node.

Everything is inside the network namespace of a test cluster: `tests/cluster/cluster enter` starts the scripts there, with
KUBECONFIG. Only addresses of the cluster are called. Python's standard library only.
"""

import argparse
import base64
import concurrent.futures
import http.client
import http.server
import json
import os
import queue
import re
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time

NODE = "10.77.0.1"
# Addresses of pretended endpoints. `claim_endpoint_addresses` makes all of them the node itself.
ENDPOINT_NETWORK = "10.79.0.0/16"
CLASS = "tallygate"
CONTROLLER = "tallygate.io/gateway-controller"
GATEWAY_API = "gateway.networking.k8s.io"
OURS_API = "tallygate.io"
SYSTEM = "tallygate-system"
WAIT = 60
# Connections to the API server at once. More only wait for the two processors of a test machine.
API_CALLERS = 4


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

    def connection(self, timeout=WAIT):
        return http.client.HTTPSConnection(self.address, context=self.context, timeout=timeout)

    def call(self, method, path, body=None, kind="application/json"):
        """Status and answer. 404 and 409 are answers; every other refusal ends the script."""
        text = None if body is None else json.dumps(body)
        try:
            status, read = self.send(method, path, text, kind)
        except (ConnectionError, http.client.HTTPException):  # it was idle for too long, and all calls can be repeated
            del self.local.connection
            status, read = self.send(method, path, text, kind)
        if status >= 300 and status not in (404, 409):
            raise SystemExit(f"{method} {path}: {status} {read[:600]}")
        return status, json.loads(read) if read else None

    def send(self, method, path, text, kind):
        if not hasattr(self.local, "connection"):
            self.local.connection = self.connection()
        self.local.connection.request(method, path, text, {"Content-Type": kind})
        response = self.local.connection.getresponse()
        return response.status, response.read()

    def get(self, path):
        status, found = self.call("GET", path)
        return found if status == 200 else None

    def apply(self, path, body):
        name = body["metadata"]["name"]
        kind = "application/apply-patch+yaml"
        return self.call("PATCH", f"{path}/{name}?fieldManager=bars&force=true", body, kind)

    def merge(self, path, body):
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def items(self, path):
        """All objects of a list, and its version."""
        found = self.get(path) or {"items": [], "metadata": {"resourceVersion": "0"}}
        return found["items"], found["metadata"]["resourceVersion"]

    def each(self, count, call):
        """`call(0)`, ..., `call(count - 1)`, several at once."""
        with concurrent.futures.ThreadPoolExecutor(API_CALLERS) as pool:
            for _ in pool.map(call, range(count)):
                pass


class Watch:
    """Events of one list of objects from a version on, with the time of their arrival."""

    def __init__(self, api, path, version):
        self.events = queue.Queue()
        self.connection = api.connection(timeout=None)
        separator = "&" if "?" in path else "?"
        self.path = f"{path}{separator}watch=true&resourceVersion={version}"
        self.is_stopping = False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        self.connection.request("GET", self.path)
        response = self.connection.getresponse()
        try:
            for line in response:
                self.events.put((time.time(), json.loads(line)))
        except (OSError, ValueError, AttributeError):
            pass  # `stop` closes it
        if not self.is_stopping:
            print(f"the watch of {self.path} has ended", flush=True)
            os._exit(1)  # what was measured so far would be wrong

    def taken(self):
        """The events since the last call."""
        found = []
        while not self.events.empty():
            found.append(self.events.get())
        return found

    def stop(self):
        self.is_stopping = True
        self.connection.sock.shutdown(socket.SHUT_RDWR)


def group_path(group, version, namespace, plural):
    root = f"/api/{version}" if not group else f"/apis/{group}/{version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


class Site:
    """A namespace with a Gateway, its routes and Services."""

    def __init__(self, api, namespace):
        self.api, self.namespace = api, namespace
        self.gateways = self.path(GATEWAY_API, "v1", "gateways")
        self.routes = self.path(GATEWAY_API, "v1", "httproutes")
        self.services = self.path("", "v1", "services")
        self.slices = self.path("discovery.k8s.io", "v1", "endpointslices")
        self.secrets = self.path("", "v1", "secrets")
        self.config_maps = self.path("", "v1", "configmaps")
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})

    def path(self, group, version, plural):
        return group_path(group, version, self.namespace, plural)

    def gateway(self, name="web", listeners=None):
        """Makes a Gateway and returns its address, once it has one."""
        listeners = listeners or [{"name": "http", "port": 80, "protocol": "HTTP"}]
        self.api.apply(self.gateways, {
            "apiVersion": f"{GATEWAY_API}/v1", "kind": "Gateway", "metadata": {"name": name},
            "spec": {"gatewayClassName": CLASS, "listeners": listeners}})
        return until("the Gateway has an address", lambda: self.address(name))

    def address(self, name="web"):
        addresses = self.api.get(f"{self.gateways}/{name}").get("status", {}).get("addresses")
        return addresses and addresses[0]["value"]

    def target_port(self, port, name="web"):
        """The port of the pods to which a port of the Gateway leads."""
        services, _ = self.api.items(self.services + f"?labelSelector={GATEWAY_API}%2Fgateway-name%3D{name}")
        found = [one["targetPort"] for service in services for one in service["spec"]["ports"] if one["port"] == port]
        return int(found[0])

    def service(self, name, servers=(9001,), addresses=(NODE,), protocol=None):
        """A headless Service whose ready servers are on these ports of these addresses."""
        port = {"port": 80} | ({"appProtocol": protocol} if protocol else {})
        self.api.apply(self.services, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                                       "spec": {"clusterIP": "None", "ports": [port]}})
        for server in servers:
            self.slice(name, server, addresses, protocol=protocol)

    def slice(self, service, port, addresses=(NODE,), name=None, protocol=None):
        """An EndpointSlice has one port for all its addresses."""
        written = {"name": "", "port": port, "protocol": "TCP"} | ({"appProtocol": protocol} if protocol else {})
        ready = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
        self.api.apply(self.slices, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name or f"{service}-{port}", "labels": {"kubernetes.io/service-name": service}},
            "ports": [written], "endpoints": ready})

    def route(self, name, host, backend, parent=None, kind="HTTPRoute", rule=None, labels=None):
        rule = rule or {"backendRefs": [{"name": backend, "port": 80}]}
        path = self.path(GATEWAY_API, "v1", kind.lower() + "s")
        return self.api.apply(path, {
            "apiVersion": f"{GATEWAY_API}/v1", "kind": kind, "metadata": {"name": name, "labels": labels or {}},
            "spec": {"parentRefs": [parent or {"name": "web"}], "hostnames": [host], "rules": [rule]}})

    def remove(self):
        self.api.call("DELETE", f"/api/v1/namespaces/{self.namespace}")


class Server:
    """A server on the node. `last` is the time at which it answered last."""

    def __init__(self, port, address=NODE):
        self.last, self.requests = 0.0, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                outer.last, outer.requests = time.time(), outer.requests + 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer((address, port), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


class Caller:
    """One keep-alive connection that asks for hosts."""

    def __init__(self, address, timeout=WAIT):
        self.connection = http.client.HTTPConnection(address, timeout=timeout)

    def status(self, host, path="/"):
        self.connection.request("GET", path, headers={"Host": host})
        response = self.connection.getresponse()
        response.read()
        return response.status


def is_live(address, host, times=10):
    """Whether a host answers with 200 on so many new connections: behind an address are several pods."""
    try:
        return all(Caller(address, timeout=5).status(host) == 200 for _ in range(times))
    except (OSError, http.client.HTTPException):
        return False


def claim_endpoint_addresses():
    """Makes every address of ENDPOINT_NETWORK the node itself, inside the cluster's network namespace."""
    subprocess.run(["ip", "route", "replace", "local", ENDPOINT_NETWORK, "dev", "lo"], check=True)


def endpoint_address(number):
    return f"10.79.{number // 250}.{number % 250 + 1}"


def until(what, found, seconds=WAIT, pause=0.02):
    """Asks until the answer is true, and returns it."""
    end = time.time() + seconds
    while time.time() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(pause)
    raise SystemExit(f"not within {seconds} s: {what}")


def condition(conditions, kind):
    return next((one for one in conditions or [] if one["type"] == kind), None)


def route_conditions(route, controller=CONTROLLER):
    """The conditions of our first entry in the status of a route."""
    parents = route.get("status", {}).get("parents", [])
    return next((one["conditions"] for one in parents if one["controllerName"] == controller), [])


def is_accepted(route):
    found = condition(route_conditions(route), "Accepted")
    return found is not None and found["status"] == "True" and \
        found["observedGeneration"] == route["metadata"]["generation"]


def summary(what, milliseconds):
    """Prints the distribution, and returns p99."""
    milliseconds.sort()
    at = lambda share: milliseconds[min(len(milliseconds) - 1, int(len(milliseconds) * share))]
    print(f"{what}: n={len(milliseconds)} p50={statistics.median(milliseconds):.0f} ms p90={at(0.9):.0f} ms "
          f"p99={at(0.99):.0f} ms max={milliseconds[-1]:.0f} ms")
    return at(0.99)


class Bars:
    """What was found, beside what was asked for. `end` exits with 1 if anything was missed."""

    def __init__(self):
        self.missed = 0

    def check(self, what, found, holds, bar):
        self.missed += not holds
        print(f"{'ok    ' if holds else 'MISSED'} {what}: {found} (bar: {bar})", flush=True)

    def at_most(self, what, found, bar, unit=""):
        shown = f"{found:.3g}" if isinstance(found, float) and abs(found) < 100 else f"{found:.0f}"
        self.check(what, f"{shown}{unit}", found <= bar, f"at most {bar}{unit}")

    def equal(self, what, found, wanted):
        self.check(what, found, found == wanted, wanted)

    def end(self):
        raise SystemExit(1 if self.missed else 0)


def arguments(description):
    """A parser that knows --kubeconfig."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"), required="KUBECONFIG" not in os.environ)
    return parser
