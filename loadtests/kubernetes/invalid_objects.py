#!/usr/bin/env python3
"""A thousand invalid objects of many kinds among good ones: each says what is wrong, and good traffic is not harmed.

    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/invalid_objects.py 1000

1. Callers ask a good route all the time, and every 20th object is another good route.
2. Every invalid object has the condition with the reason that its fault has; an Ingress, which has no conditions, an event.
3. Events: at least one for each invalid object, at most three, and none more at rest.
4. Afterwards every good route answers, no configuration was rejected as a whole, and the objects are deleted under traffic.

Exit code 1: a bar is missed. Python's standard library only.
"""

import collections
import threading
import time

import gateway_pods
from cluster_api import CONTROLLER, GATEWAY_API, OURS_API, Api, Bars, Caller, Server, Site, arguments, group_path, is_live, until

GOOD_EVERY = 20
STATUS_SECONDS = 30
REST_SECONDS = 40  # longer than the time after which a missing address becomes an event
EVENTS_EACH = 3  # a reason of Accepted, of ResolvedRefs and of Programmed


class Maker:
    """Makes invalid objects of one kind."""

    def __init__(self, name, share, make, kind, reason):
        self.name, self.share, self.make, self.kind, self.reason = name, share, make, kind, reason

    def found(self, item):
        """All (type, status, reason) of conditions, wherever the object has them."""
        status = item.get("status", {})
        lists = [status.get("conditions", [])]
        lists += [one.get("conditions", []) for field in ("parents", "ancestors", "listeners") for one in status.get(field, [])]
        return [(one["type"], one["status"], one["reason"]) for conditions in lists for one in conditions]

    def is_right(self, item):
        return (self.kind, "False", self.reason) in self.found(item)


class Objects:
    """The namespace with all objects."""

    def __init__(self, api):
        self.api, self.site = api, Site(api, f"invalid-{int(time.time())}")
        self.departments = group_path(OURS_API, "v1alpha1", "", "departments")
        self.begun = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        self.made = []  # maker and path of each invalid object

    def base(self):
        """What the objects refer to. Returns the address of the Gateway."""
        site = self.site
        site.service("shop")
        site.api.apply(site.secrets, {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "garbage"},
                                      "stringData": {"tls.crt": "no certificate", "tls.key": "no key"}})
        address = site.gateway(listeners=[
            {"name": "http", "port": 80, "protocol": "HTTP"},
            {"name": "only", "port": 81, "protocol": "HTTP", "hostname": "only.example"}])
        site.route("good", "good.example", "shop")
        return address

    def makers(self):
        rule = lambda **fields: {"backendRefs": [{"name": "shop", "port": 80}]} | fields
        http = lambda change: lambda number: self.route(f"bad-{number}", **change)
        return [
            Maker("HTTPRoute, no Service", 12, http({"rule": {"backendRefs": [{"name": "absent", "port": 80}]}}), "ResolvedRefs", "BackendNotFound"),
            Maker("HTTPRoute, no ReferenceGrant", 8, http({"rule": {"backendRefs": [{"name": "kubernetes", "namespace": "default", "port": 443}]}}),
                  "ResolvedRefs", "RefNotPermitted"),
            Maker("HTTPRoute, kind of backend", 6, http({"rule": {"backendRefs": [{"group": "other.example", "kind": "Bucket", "name": "shop", "port": 80}]}}),
                  "ResolvedRefs", "InvalidKind"),
            Maker("HTTPRoute, no listener", 8, http({"parent": {"name": "web", "sectionName": "absent"}}), "Accepted", "NoMatchingParent"),
            Maker("HTTPRoute, host of no listener", 8, http({"parent": {"name": "web", "sectionName": "only"}}), "Accepted", "NoMatchingListenerHostname"),
            Maker("HTTPRoute, unknown filter", 8, http({"rule": rule(filters=[{"type": "ExtensionRef", "extensionRef": {
                "group": "other.example", "kind": "Wasm", "name": "x"}}])}), "Accepted", "UnsupportedValue"),
            Maker("HTTPRoute, expression", 8, http({"rule": rule(matches=[{"path": {"type": "RegularExpression", "value": "/("}}])}),
                  "Accepted", "UnsupportedValue"),
            Maker("GRPCRoute, no Service", 8, http({"kind": "GRPCRoute", "backend": "absent"}), "ResolvedRefs", "BackendNotFound"),
            Maker("Gateway, no Secret", 2, lambda number: self.gateway(number, "absent"), "ResolvedRefs", "InvalidCertificateRef"),
            Maker("Gateway, Secret is garbage", 2, lambda number: self.gateway(number, "garbage"), "ResolvedRefs", "InvalidCertificateRef"),
            Maker("BackendTLSPolicy, no authority", 6, self.backend_policy, "Accepted", "NoValidCACertificate"),
            Maker("Department, no authority", 6, self.department, "Accepted", "NoValidCACertificate"),
            Maker("CommandSet, expression", 6, self.command_set, "Accepted", "Invalid"),
            Maker("Grant, no route", 6, self.grant, "Accepted", "TargetNotFound"),
            Maker("ClientAuthPolicy, no Gateway", 6, self.client_policy, "Accepted", "TargetNotFound"),
            Maker("Ingress, snippet", 10, self.ingress, None, None),
        ]

    def apply(self, path, body):
        self.api.apply(path, body)
        return f"{path}/{body['metadata']['name']}"

    def route(self, name, kind="HTTPRoute", backend="shop", parent=None, rule=None):
        self.site.route(name, f"{name}.example", backend, parent, kind, rule)
        return f"{self.site.path(GATEWAY_API, 'v1', kind.lower() + 's')}/{name}"

    def gateway(self, number, secret):
        listener = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": secret}]}}
        return self.apply(self.site.gateways, {
            "apiVersion": f"{GATEWAY_API}/v1", "kind": "Gateway", "metadata": {"name": f"bad-{number}"},
            "spec": {"gatewayClassName": "tallygate", "listeners": [listener]}})

    def backend_policy(self, number):
        """With a good route to its Service: a policy is about the Gateways of these routes."""
        self.site.service(f"tls-{number}")
        self.site.route(f"tls-{number}", f"tls-{number}.example", f"tls-{number}")
        authority = {"group": "", "kind": "ConfigMap", "name": "absent"}
        return self.apply(self.site.path(GATEWAY_API, "v1", "backendtlspolicies"), {
            "apiVersion": f"{GATEWAY_API}/v1", "kind": "BackendTLSPolicy", "metadata": {"name": f"bad-{number}"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": f"tls-{number}"}],
                     "validation": {"hostname": "shop.example", "caCertificateRefs": [authority]}}})

    def ours(self, plural, kind, number, spec):
        path = self.departments if kind == "Department" else self.site.path(OURS_API, "v1alpha1", plural)
        return self.apply(path, {"apiVersion": f"{OURS_API}/v1alpha1", "kind": kind, "metadata": {"name": f"bad-{number}"}, "spec": spec})

    def department(self, number):
        return self.ours("departments", "Department", number, {
            "authorities": [{"namespace": self.site.namespace, "name": "absent"}], "callers": [{"dns": f"caller-{number}.example"}]})

    def command_set(self, number):
        return self.ours("commandsets", "CommandSet", number, {"commands": [{"id": "read", "matches": [{"pathRegex": "/("}]}]})

    def grant(self, number):
        return self.ours("grants", "Grant", number, {"targetRefs": [{"kind": "HTTPRoute", "name": "absent"}], "departments": ["ingress"]})

    def client_policy(self, number):
        return self.ours("clientauthpolicies", "ClientAuthPolicy", number, {
            "targetRefs": [{"kind": "Gateway", "name": f"absent-{number}"}], "caCertificateRefs": [{"kind": "ConfigMap", "name": "absent"}]})

    def ingress(self, number):
        backend = {"service": {"name": "shop", "port": {"number": 80}}}
        snippet = {"nginx.ingress.kubernetes.io/configuration-snippet": "deny all;"}
        return self.apply(self.site.path("networking.k8s.io", "v1", "ingresses"), {
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": f"bad-{number}", "annotations": snippet},
            "spec": {"ingressClassName": "tallygate",
                     "rules": [{"host": f"bad-{number}.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})

    def make(self, count):
        """`count` invalid objects of all kinds, mixed, and good routes between them. Returns the number of good ones."""
        turns = [maker for maker in self.makers() for _ in range(maker.share)]
        step = 37  # kinds alternate: the step and the number of turns have no common divisor
        good = 0
        for number in range(count):
            maker = turns[number * step % len(turns)]
            self.made.append((maker, maker.make(number)))
            if number % GOOD_EVERY == 0:
                self.site.route(f"good-{good}", f"good-{good}.example", "shop")
                good += 1
        return good

    def events(self):
        """The reasons of our events about the objects, by object. Those about Departments are in `default`."""
        found = collections.defaultdict(list)
        for namespace in (self.site.namespace, "default"):
            items, _ = self.api.items(group_path("events.k8s.io", "v1", namespace, "events"))
            for one in items:
                is_ours = one.get("reportingController") == CONTROLLER and (one["eventTime"] or "") >= self.begun
                if is_ours and one["regarding"]["name"].startswith("bad-"):
                    found[one["regarding"]["kind"] + " " + one["regarding"]["name"]].append(one["reason"])
        return found

    def remove(self):
        for maker, path in self.made:
            if path.startswith(self.departments):
                self.api.call("DELETE", path)
        self.site.remove()


class GoodCaller:
    """Asks a good route all the time."""

    def __init__(self, address):
        self.answers, self.stopping, self.address = collections.Counter(), threading.Event(), address
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        caller = Caller(self.address)
        while not self.stopping.is_set():
            try:
                self.answers[caller.status("good.example")] += 1
            except OSError as fault:
                self.answers[type(fault).__name__] += 1
                caller = Caller(self.address)
            time.sleep(0.003)

    def stop(self):
        self.stopping.set()
        self.thread.join()
        return dict(self.answers)


def check_conditions(objects, bars):
    """Waits until each object has its reason, and shows what those have that do not."""
    created, wrong = time.time(), list(objects.made)
    while wrong and time.time() - created < STATUS_SECONDS:
        wrong = [(maker, path) for maker, path in wrong if maker.kind and not maker.is_right(objects.api.get(path))]
    print(f"statuses looked at until {time.time() - created:.1f} s after the last object")
    shown = collections.Counter()
    for maker, path in wrong:
        found = [f"{kind}={status} {reason}" for kind, status, reason in maker.found(objects.api.get(path)) if status != "True"]
        shown[f"{maker.name}: {sorted(set(found))} in place of {maker.kind}=False {maker.reason}"] += 1
    for what, many in shown.most_common():
        print(f"       {many} x {what}")
    bars.equal("invalid objects without the right reason", len(wrong), 0)


def dropped_events(api):
    return gateway_pods.metric_sum(api, "tallygate_kube_events_total", 'result="dropped"')


def check_events(objects, dropped_before, bars):
    time.sleep(REST_SECONDS)
    events = objects.events()
    dropped = dropped_events(objects.api) - dropped_before
    time.sleep(REST_SECONDS)
    later = objects.events()
    count = lambda found: sum(len(reasons) for reasons in found.values())
    print(f"events: {count(events)} about {len(events)} of {len(objects.made)} objects; dropped: {dropped:.0f}")
    most = max(events, key=lambda name: len(events[name]), default=None)
    bars.at_most(f"events of one object ({most}: {events.get(most)})", len(events.get(most, [])), EVENTS_EACH)
    bars.equal("objects without an event", len(objects.made) - len(events), 0)
    bars.equal(f"further events in {REST_SECONDS} s", count(later) - count(events), 0)


def main():
    parser = arguments(__doc__)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    objects = Objects(api)
    Server(9001)
    address = objects.base()
    until("the good route answers", lambda: is_live(address, "good.example"))
    caller = Caller(address)
    rejected = lambda: gateway_pods.metric_sum(api, "tallygate_kube_applies_total", 'result="rejected"')
    before, dropped, good_caller = rejected(), dropped_events(api), GoodCaller(address)
    begun = time.time()
    good = objects.make(given.count)
    print(f"{given.count} invalid objects and {good} good routes made in {time.time() - begun:.0f} s")
    check_conditions(objects, bars)
    answers = collections.Counter(caller.status(f"good-{number}.example") for number in range(good))
    bars.equal("answers of the good routes between them", dict(answers), {200: good})
    check_events(objects, dropped, bars)
    bars.equal("configurations rejected as a whole", rejected() - before, 0)
    for number in range(good):
        api.call("DELETE", f"{objects.site.routes}/good-{number}")
    for _, path in objects.made:
        api.call("DELETE", path)
    time.sleep(2)
    answers = good_caller.stop()
    bars.equal("answers of the good route all the time", answers, {200: sum(answers.values())})
    objects.remove()
    bars.end()


if __name__ == "__main__":
    main()
