#!/usr/bin/env python3
"""Departments on the cluster: their commands in the ledgers, and certificates that change or are revoked.

    tests/cluster/cluster enter /usr/bin/python3 $PWD/loadtests/kubernetes/departments.py

ledger      a department's commands through a Gateway (Department, ClientAuthPolicy, CommandSet, Grant) and through an
            Ingress (auth-tls-secret) are in the ledgers, under its id; callers without a certificate and of another
            department are refused
rotation    the Secret of a listener gets another certificate, 20 times, while handshakes are made at every pod all the time.
            The time until every pod shows the new one: at most 1 s; no handshake fails
revocation  a certificate is revoked by a list in a ConfigMap: at most 1 s until every pod refuses it, and the connection
            that it has open is closed; the other certificate is served on

The authority is that of `tallygate pki`, the program of the pod. Exit code 1: a bar is missed. Needs openssl.
"""

import collections
import http.client
import os
import ssl
import subprocess
import tempfile
import threading
import time

import gateway_pods
from cluster_api import GATEWAY_API, OURS_API, SYSTEM, Api, Bars, Server, Site, arguments, group_path, summary, until
from traffic import make_certificate

COMMANDS = 20
ROTATIONS = 20
BAR_MS = 1000
HOST, INGRESS_HOST = "cameras.example", "ingress.example"
DEPARTMENTS = ("traffic-police", "fire-brigade")


class Pki:
    """An authority for trials in a folder."""

    def __init__(self, folder):
        self.folder = os.path.join(folder, "pki")
        self.program = next(iter(gateway_pods.gateways().values())).file("/tallygate")
        self.run("init", "--host", HOST, "--host", INGRESS_HOST)
        for department in DEPARTMENTS:
            self.run("issue", "--department", department)

    def run(self, command, *words):
        subprocess.run([self.program, "pki", command, "--dir", self.folder, *words], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def file(self, name):
        return os.path.join(self.folder, name)

    def text(self, name):
        with open(self.file(name), encoding="ascii") as read:
            return read.read()

    def context(self, department=None):
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        context.check_hostname = False  # pods are called by their addresses
        if department:
            context.load_cert_chain(self.file(f"clients/{department}.pem"), self.file(f"clients/{department}.key"))
        return context


class Connection(http.client.HTTPSConnection):
    """A connection to an address, with another name in the handshake."""

    def __init__(self, address, port, name, context):
        super().__init__(address, port, context=context, timeout=5)
        self.name = name

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.name)

    def status(self, path):
        self.request("GET", path, headers={"Host": self.name})
        response = self.getresponse()
        response.read()
        return response.status


def ask(address, port, name, context, path):
    """The status, or the name of the fault, on a new connection."""
    connection = Connection(address, port, name, context)
    try:
        return connection.status(path)
    except (OSError, http.client.HTTPException) as fault:
        return type(fault).__name__
    finally:
        connection.close()


def objects(site, pki):
    """Departments, a Gateway and an Ingress for their callers, with commands and grants."""
    api, namespace = site.api, site.namespace
    lists = {"ca.crt": pki.text("ca.pem"), "ca.crl": pki.text("revoked.crl")}
    api.apply(site.config_maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "city-ca"}, "data": lists})
    tls(site, pki.text("server.pem"), pki.text("server.key"))
    api.apply(site.secrets, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "callers"},
                             "stringData": {"ca.crt": pki.text("ca.pem")}})
    site.service("cameras", (9031,))
    https = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "web-tls"}]}}
    address = site.gateway(listeners=[https])
    ours = lambda plural: site.path(OURS_API, "v1alpha1", plural)
    version = f"{OURS_API}/v1alpha1"
    reference = {"kind": "ConfigMap", "name": "city-ca"}
    api.apply(ours("clientauthpolicies"), {
        "apiVersion": version, "kind": "ClientAuthPolicy", "metadata": {"name": "city"},
        "spec": {"targetRefs": [{"kind": "Gateway", "name": "web"}], "caCertificateRefs": [reference], "revocationListRefs": [reference]}})
    for department in DEPARTMENTS:
        api.apply(group_path(OURS_API, "v1alpha1", "", "departments"), {
            "apiVersion": version, "kind": "Department", "metadata": {"name": department},
            "spec": {"authorities": [{"namespace": namespace, "name": "city-ca"}],
                     "callers": [{"uri": f"spiffe://city.example/department/{department}"}]}})
    api.apply(ours("commandsets"), {
        "apiVersion": version, "kind": "CommandSet", "metadata": {"name": "cameras"},
        "spec": {"commands": [{"id": "snapshot.read", "matches": [{"method": "GET", "path": "/v1/snapshots/{id}"}], "units": 3}]}})
    named = {"type": "ExtensionRef", "extensionRef": {"group": OURS_API, "kind": "CommandSet", "name": "cameras"}}
    rule = {"name": "api", "matches": [{"path": {"type": "PathPrefix", "value": "/cameras"}}], "filters": [named],
            "backendRefs": [{"name": "cameras", "port": 80}]}
    site.route("cameras", HOST, "cameras", rule=rule)
    api.apply(ours("grants"), {
        "apiVersion": version, "kind": "Grant", "metadata": {"name": "cameras"},
        "spec": {"targetRefs": [{"kind": "HTTPRoute", "name": "cameras"},
                                {"group": "networking.k8s.io", "kind": "Ingress", "name": "door"}],
                 "departments": [DEPARTMENTS[0]]}})
    backend = {"service": {"name": "cameras", "port": {"number": 80}}}
    api.apply(site.path("networking.k8s.io", "v1", "ingresses"), {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "door", "annotations": {"nginx.ingress.kubernetes.io/auth-tls-secret": f"{namespace}/callers",
                                                     "nginx.ingress.kubernetes.io/ssl-redirect": "true"}},
        "spec": {"ingressClassName": "tallygate", "tls": [{"hosts": [INGRESS_HOST], "secretName": "web-tls"}],
                 "rules": [{"host": INGRESS_HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
    return address


def tls(site, certificate, key):
    site.api.apply(site.secrets, {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "web-tls"},
                                  "stringData": {"tls.crt": certificate, "tls.key": key}})


def check_ledger(site, pki, address, bars):
    own, other = (pki.context(department) for department in DEPARTMENTS)
    path = "/cameras/v1/snapshots/1"
    until("the department's command answers", lambda: all(ask(address, 443, HOST, own, path) == 200 for _ in range(10)))
    service = site.api.get(group_path("", "v1", SYSTEM, "services") + "/tallygate")
    door = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    until("the Ingress answers", lambda: all(ask(door, 443, INGRESS_HOST, own, "/") == 200 for _ in range(10)))
    time.sleep(1)
    keys = "department,subsystem,command,outcome"
    before = gateway_pods.usage(site.api, site.namespace, keys)
    answers = [ask(address, 443, HOST, own, path) for _ in range(COMMANDS)]
    answers += [ask(door, 443, INGRESS_HOST, own, "/") for _ in range(COMMANDS)]
    bars.equal("answers through Gateway and Ingress", dict(collections.Counter(answers)), {200: COMMANDS * 2})
    bars.equal("another department through the Gateway", ask(address, 443, HOST, other, path), 403)
    bars.equal("another department through the Ingress", ask(door, 443, INGRESS_HOST, other, "/"), 403)
    bars.equal("a path that is no command", ask(address, 443, HOST, own, "/cameras/other"), 404)
    nobody = ask(address, 443, HOST, pki.context(), path)
    bars.check("without a certificate through the Gateway", nobody, not isinstance(nobody, int), "no handshake")
    bars.equal("without a certificate through the Ingress", ask(door, 443, INGRESS_HOST, pki.context(), "/"), 400)
    time.sleep(1.5)
    after = gateway_pods.usage(site.api, site.namespace, keys)
    found = {row: count - before.get(row, 0) for row, count in after.items() if count != before.get(row, 0)}
    print(f"new in the ledgers: {found}")
    name = site.namespace
    bars.equal("commands of the department through the Gateway",
               found.get((DEPARTMENTS[0], f"{name}.cameras", "snapshot.read", "ok")), COMMANDS)
    through = {row: count for row, count in found.items() if row[1] == f"{name}.door_ingress" and row[3] == "ok"}
    bars.equal("commands through the Ingress, by department", {row[0]: count for row, count in through.items()}, {DEPARTMENTS[0]: COMMANDS})


class Handshakes:
    """Handshakes at one pod all the time: when each certificate was first and last seen, and faults."""

    def __init__(self, address, port, context):
        self.first, self.last, self.faults, self.count = {}, {}, [], 0
        self.address, self.port, self.context, self.stopping = address, port, context, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            connection = Connection(self.address, self.port, HOST, self.context)
            try:
                connection.connect()
                shown, now = connection.sock.getpeercert(binary_form=True), time.time()
                self.first.setdefault(shown, now)
                self.last[shown] = now
                self.count += 1
            except OSError as fault:
                self.faults.append(repr(fault))
            finally:
                connection.close()
            time.sleep(0.003)

    def stop(self):
        self.stopping.set()
        self.thread.join()


def pods(site):
    port = site.target_port(443)
    return [(address, port) for address in gateway_pods.addresses(site.api).values()]


def check_rotation(site, pki, bars):
    context = pki.context(DEPARTMENTS[0])
    context.verify_mode = ssl.CERT_NONE
    watchers = [Handshakes(address, port, context) for address, port in pods(site)]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROTATIONS):
            certificate, key = make_certificate(folder, HOST)
            shown = ssl.PEM_cert_to_DER_cert(certificate)
            tls(site, certificate, key)
            begun = time.time()
            for watcher in watchers:
                until("the new certificate is shown", lambda: shown in watcher.first, 30, 0.002)
                times.append((watcher.first[shown] - begun) * 1000)
            time.sleep(0.2)
    for watcher in watchers:
        watcher.stop()
    summary("a new certificate is shown", times)
    bars.at_most("a new certificate is shown, the slowest", times[-1], BAR_MS, " ms")
    bars.equal(f"failed of {sum(watcher.count for watcher in watchers)} handshakes", [fault for watcher in watchers for fault in watcher.faults], [])
    tls(site, pki.text("server.pem"), pki.text("server.key"))
    time.sleep(1)


def check_revocation(site, pki, bars):
    own, other = (pki.context(department) for department in DEPARTMENTS)
    path = "/cameras/v1/snapshots/1"
    places = pods(site)
    open_ones = [Connection(address, port, HOST, own) for address, port in places]
    bars.equal("open connections before", [connection.status(path) for connection in open_ones], [200] * len(places))
    pki.run("revoke", pki.file(f"clients/{DEPARTMENTS[0]}.pem"))
    site.api.merge(f"{site.config_maps}/city-ca", {"data": {"ca.crl": pki.text("revoked.crl")}})
    begun, times = time.time(), []
    for address, port in places:
        until("the certificate is refused", lambda: not isinstance(ask(address, port, HOST, own, path), int), 30, 0.005)
        times.append((time.time() - begun) * 1000)
    summary("a revoked certificate is refused", times)
    bars.at_most("a revoked certificate is refused, the slowest pod", times[-1], BAR_MS, " ms")
    until("open connections are closed", lambda: all(is_closed(connection) for connection in open_ones), 30)
    bars.at_most("open connections are closed", (time.time() - begun) * 1000, BAR_MS * 3, " ms")
    bars.equal("the other certificate (no grant)", [ask(address, port, HOST, other, path) for address, port in places], [403] * len(places))


def is_closed(connection):
    connection.sock.settimeout(0.001)
    try:
        return connection.sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def main():
    given = arguments(__doc__).parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    site = Site(api, f"city-{int(time.time())}")
    Server(9031)
    with tempfile.TemporaryDirectory() as folder:
        pki = Pki(folder)
        try:
            address = objects(site, pki)
            check_ledger(site, pki, address, bars)
            check_rotation(site, pki, bars)
            check_revocation(site, pki, bars)
        finally:
            for department in DEPARTMENTS:
                api.call("DELETE", group_path(OURS_API, "v1alpha1", "", "departments") + f"/{department}")
            site.remove()
    bars.end()


if __name__ == "__main__":
    main()
