#!/usr/bin/env python3
"""A second, hostile controller writes into the statuses that ours writes: its entries survive, and no exchange is endless.

    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/hostile_controller.py

It writes entries of its own (another controllerName, conditions, fields in its own order) into `parents` of HTTPRoute, GRPCRoute
and TLSRoute and `ancestors` of BackendTLSPolicy, conditions of its own type into a Gateway, and an address into `loadBalancer` of
an Ingress, whose labels, annotations and finalizers must survive as well. For each kind:

before   the object names a Gateway that does not exist: only the hostile controller writes. Then the Gateway is made
while    it changes its entry 100 times, while the spec changes 20 times, so that ours writes as well
after    it stops. Ours has nothing left to write
drops    it replaces the whole list by its own entry 20 times, as controllers do that believe the list is theirs
full     it fills the list to the API's maximum: there is no place for ours, and that must not be a loop either

In every phase its entry must be as it was written, byte for byte, and last no longer than its own writes: writes of ours are
the MODIFIED events whose version is none of the script's. Exit code 1: a bar is missed. Python's standard library only.
"""

import json
import time

from cluster_api import CONTROLLER, GATEWAY_API, Api, Bars, Site, Watch, arguments, condition, until

HOSTILE = "hostile.example/controller"
CHANGES, SPEC_CHANGES, DROPS = 100, 20, 20
PAUSE, SETTLE = 0.05, 5
LISTS = {"httproutes": ("parents", "parentRef", 32), "grpcroutes": ("parents", "parentRef", 32),
         "tlsroutes": ("parents", "parentRef", 32), "backendtlspolicies": ("ancestors", "ancestorRef", 16)}
WRITTEN_AT = "2026-01-02T03:04:05Z"


def text(value):
    """The bytes of a value, with its order of fields."""
    return json.dumps(value, separators=(",", ":"))


class Subject:
    """An object of one kind, and every version that the script itself has written."""

    group = GATEWAY_API

    def __init__(self, site, kind, name):
        self.api, self.kind = site.api, kind
        self.path = f"{site.path(self.group, 'v1', kind)}/{name}"
        self.list_path, self.name = site.path(self.group, "v1", kind), name
        self.own_versions, self.conflicts, self.written = set(), 0, ""

    def watch(self):
        _, version = self.api.items(self.list_path)
        return Watch(self.api, f"{self.list_path}?fieldSelector=metadata.name%3D{self.name}", version)

    def foreign_writes(self, watch):
        """Writes by ours since the watch began."""
        versions = [event["object"]["metadata"]["resourceVersion"] for _, event in watch.taken() if event["type"] == "MODIFIED"]
        return sum(version not in self.own_versions for version in versions)

    def put_status(self, change):
        """Writes the status like any controller does: with the version that was read, again after a conflict."""
        while True:
            found = self.api.get(self.path)
            change(found)
            status, answer = self.api.call("PUT", f"{self.path}/status", found)
            if status == 200:
                self.own_versions.add(answer["metadata"]["resourceVersion"])
                return
            self.conflicts += 1

    def change_spec(self, turn):
        _, answer = self.api.merge(self.path, self.spec_change(turn))
        self.own_versions.add(answer["metadata"]["resourceVersion"])

    def spec_change(self, turn):
        if self.kind == "gateways":
            return {"spec": {"infrastructure": {"labels": {"turn": str(turn)}}}}
        if self.kind == "backendtlspolicies":
            return {"spec": {"validation": {"hostname": f"turn-{turn}.example"}}}
        return {"spec": {"hostnames": [f"turn-{turn}.example"]}}


class EntrySubject(Subject):
    """A route or policy: a list with an entry for each controller."""

    def __init__(self, site, kind, name):
        super().__init__(site, kind, name)
        self.list, self.reference, self.most = LISTS[kind]

    def entry(self, turn, place=0):
        reference = {"kind": "Gateway", "name": f"other-{place}", "group": GATEWAY_API}
        # `type` last, as no typed client would write it.
        seen = {"status": "Unknown", "reason": "Hostile", "message": f"turn {turn} \u00e9\u4e2d \"quoted\"",
                "lastTransitionTime": WRITTEN_AT, "observedGeneration": 7, "type": "Accepted"}
        return {self.reference: reference, "controllerName": HOSTILE, "conditions": [seen]}

    def entries(self, found):
        return found.get("status", {}).get(self.list, [])

    def of(self, controller):
        return [one for one in self.entries(self.api.get(self.path)) if one["controllerName"] == controller]

    def write(self, turn, alone=False, count=1):
        wanted = [self.entry(turn, place) for place in range(count)]

        def change(found):
            others = [] if alone else [one for one in self.entries(found) if one["controllerName"] != HOSTILE]
            found["status"] = {self.list: wanted + others if turn % 2 else others + wanted}
        self.put_status(change)
        self.written = text(self.of(HOSTILE))

    def survives(self):
        return text(self.of(HOSTILE)) == self.written

    def ours_is_there(self):
        return bool(self.of(CONTROLLER))


class ConditionSubject(Subject):
    """A Gateway: conditions of all controllers in one list, that of the Gateway."""

    def write(self, turn, alone=False, count=1):
        wanted = {"type": "hostile.example/Seen", "status": "True", "reason": "Hostile", "message": f"turn {turn} \u00e9",
                  "lastTransitionTime": WRITTEN_AT, "observedGeneration": 7}

        def change(found):
            conditions = found.setdefault("status", {}).get("conditions", [])
            others = [] if alone else [one for one in conditions if one["type"] != wanted["type"]]
            found["status"]["conditions"] = [wanted] + others
        self.put_status(change)
        self.written = text(self.hostile())

    def hostile(self):
        return condition(self.api.get(self.path).get("status", {}).get("conditions"), "hostile.example/Seen")

    def survives(self):
        return text(self.hostile()) == self.written

    def ours_is_there(self):
        conditions = self.api.get(self.path).get("status", {}).get("conditions")
        return (condition(conditions, "Programmed") or {}).get("status") == "True"


class IngressSubject(Subject):
    """An Ingress: addresses of all controllers in one list. A status write of a built-in kind may change its metadata."""

    group = "networking.k8s.io"
    metadata = {"labels": {"team": "harbour"}, "annotations": {"hostile.example/note": "\u00e9", "nginx.ingress.kubernetes.io/enable-cors": "true"},
                "finalizers": ["hostile.example/finalizer"]}

    def make(self, site):
        backend = {"service": {"name": "shop", "port": {"number": 80}}}
        self.api.call("POST", self.list_path, {
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": self.name} | self.metadata,
            "spec": {"ingressClassName": "tallygate",
                     "rules": [{"host": "door.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
        until("the Ingress has an address of ours", self.ours_is_there)

    def addresses(self, found=None):
        found = found or self.api.get(self.path)
        return found["status"].get("loadBalancer", {}).get("ingress", [])

    def write(self, turn, alone=False, count=1):
        self.wanted = {"ip": f"192.0.2.{turn % 250 + 1}"}

        def change(found):
            others = [] if alone else [one for one in self.addresses(found) if not one["ip"].startswith("192.0.2.")]
            found["status"]["loadBalancer"] = {"ingress": [self.wanted] + others}
        self.put_status(change)

    def survives(self):
        found = self.api.get(self.path)
        metadata = {field: found["metadata"].get(field) for field in self.metadata}
        return metadata == self.metadata and self.wanted in self.addresses(found)

    def ours_is_there(self):
        return any(not one["ip"].startswith("192.0.2.") for one in self.addresses())

    def spec_change(self, turn):
        found = self.api.get(self.path)["spec"]["rules"]
        found[0]["host"] = f"turn-{turn}.example"
        return {"spec": {"rules": found}}


def attack(subject, bars):
    """The phases after `before`."""
    kind = subject.kind
    bars.equal(f"{kind}: entry from before ours is as written", subject.survives(), True)
    watch, changed = subject.watch(), 0
    for turn in range(CHANGES):
        subject.write(turn)
        if turn % (CHANGES // SPEC_CHANGES) == 0:
            subject.change_spec(turn)
        changed += not subject.survives()
        time.sleep(PAUSE)
    time.sleep(SETTLE)
    ours = subject.foreign_writes(watch)
    bars.equal(f"{kind}: changed entries while both write", changed + (not subject.survives()), 0)
    print(f"       {kind}: {CHANGES} hostile writes, {SPEC_CHANGES} changes of the spec, {subject.conflicts} conflicts")
    bars.at_most(f"{kind}: writes of ours meanwhile", ours, SPEC_CHANGES * 2)
    time.sleep(SETTLE)
    bars.equal(f"{kind}: writes of ours after that", subject.foreign_writes(watch), 0)
    for turn in range(DROPS):
        subject.write(turn, alone=True)
        until("ours is back", subject.ours_is_there, 20)
    time.sleep(SETTLE)
    bars.at_most(f"{kind}: writes of ours after {DROPS} replaced lists", subject.foreign_writes(watch), DROPS * 2)
    bars.equal(f"{kind}: entry is as written after that", subject.survives(), True)
    if isinstance(subject, EntrySubject):
        subject.write(1, alone=True, count=subject.most)
        time.sleep(SETTLE)
        bars.at_most(f"{kind}: writes of ours into a full list", subject.foreign_writes(watch), 1)
        bars.equal(f"{kind}: hostile entries in a full list that survive", len(subject.of(HOSTILE)), subject.most)
        bars.equal(f"{kind}: the full list is as written", subject.survives(), True)
        subject.write(1, alone=True)
        until("ours is back after a full list", subject.ours_is_there, 20)
    watch.stop()


def make_subjects(site):
    """The objects, of which all but the Gateway name a Gateway that does not exist yet."""
    site.service("shop", ())
    site.service("tls", ())
    site.route("http", "http.example", "shop")
    site.route("grpc", "grpc.example", "shop", kind="GRPCRoute")
    site.route("tls", "tls.example", "shop", kind="TLSRoute")
    site.api.apply(site.config_maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"},
                                      "data": {"ca.crt": certificate()}})
    site.api.apply(site.path(GATEWAY_API, "v1", "backendtlspolicies"), {
        "apiVersion": f"{GATEWAY_API}/v1", "kind": "BackendTLSPolicy", "metadata": {"name": "policy"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "shop"}],
                 "validation": {"hostname": "shop.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}}})
    return [EntrySubject(site, "httproutes", "http"), EntrySubject(site, "grpcroutes", "grpc"),
            EntrySubject(site, "tlsroutes", "tls"), EntrySubject(site, "backendtlspolicies", "policy")]


def certificate():
    import tempfile
    from traffic import make_certificate
    with tempfile.TemporaryDirectory() as folder:
        return make_certificate(folder, "ca.example")[0]


def main():
    given = arguments(__doc__).parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    site = Site(api, f"hostile-{int(time.time())}")
    subjects = make_subjects(site)
    for subject in subjects:
        subject.write(0)
    time.sleep(SETTLE)
    for subject in subjects:
        bars.equal(f"{subject.kind}: entries of ours without a Gateway of ours", len(subject.of(CONTROLLER)), 0)
    site.gateway(listeners=[{"name": "http", "port": 80, "protocol": "HTTP"},
                            {"name": "tls", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}])
    gateway = ConditionSubject(site, "gateways", "web")
    gateway.write(0)
    for subject in subjects:
        until(f"{subject.kind} has an entry of ours", subject.ours_is_there)
    ingress = IngressSubject(site, "ingresses", "door")
    ingress.make(site)
    time.sleep(SETTLE)
    bars.equal("ingresses: metadata after the first write of ours",
               {field: api.get(ingress.path)["metadata"].get(field) for field in ingress.metadata}, ingress.metadata)
    api.merge(ingress.path, {"metadata": ingress.metadata})
    ingress.write(0)
    try:
        for subject in [*subjects, gateway, ingress]:
            attack(subject, bars)
    finally:
        api.merge(ingress.path, {"metadata": {"finalizers": None}})
        site.remove()
    bars.end()


if __name__ == "__main__":
    main()
