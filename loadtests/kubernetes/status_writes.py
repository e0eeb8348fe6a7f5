#!/usr/bin/env python3
"""Statuses of many routes: how soon they are right, how often each is written, and that nothing is written at rest.

    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/status_writes.py 1000
    tests/cluster/cluster enter python3 $PWD/loadtests/kubernetes/status_writes.py 1000 --rest 600

1. A watch of routes and Gateways begins. N routes are made. Measured: the time from the last answer of the API server until
   the watch has shown every route as Accepted with its generation, and `attachedRoutes` of the Gateway is N.
2. Each MODIFIED event with another resourceVersion is a write. At most two for each route; those of the Gateway, whose
   count of routes changes meanwhile, are printed.
3. Rest: watches of all kinds that the controller reads or writes, but Leases, in namespaces other than kube-system, and of its own
   Events. No change in `--rest` seconds, and no growth of tallygate_kube_status_writes_total.

Exit code 1: a bar is missed. Python's standard library only.
"""

import collections
import time

import gateway_pods
from cluster_api import CONTROLLER, GATEWAY_API, OURS_API, Api, Bars, Server, Site, Watch, arguments, is_accepted, until

BAR_SECONDS = 2
BAR_WRITES = 2
# Path of each kind that the controller reads or writes.
KINDS = {
    **{plural: f"/apis/{GATEWAY_API}/v1/{plural}" for plural in
       ("gatewayclasses", "gateways", "listenersets", "httproutes", "grpcroutes", "tlsroutes", "backendtlspolicies",
        "referencegrants")},
    **{plural: f"/apis/{OURS_API}/v1alpha1/{plural}" for plural in
       ("departments", "commandsets", "grants", "clientauthpolicies")},
    "ingresses": "/apis/networking.k8s.io/v1/ingresses",
    "ingressclasses": "/apis/networking.k8s.io/v1/ingressclasses",
    "services": "/api/v1/services",
    "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices",
    "secrets": "/api/v1/secrets",
    "configmaps": "/api/v1/configmaps",
    "events": "/apis/events.k8s.io/v1/events",
}


class Writes:
    """Writes of objects, by the events of a watch."""

    def __init__(self, watch, versions):
        self.watch, self.versions = watch, versions
        self.count, self.objects, self.accepted_at, self.last = collections.Counter(), {}, {}, 0.0

    def read(self):
        for when, event in self.watch.taken():
            item = event["object"]
            name, version = item["metadata"].get("name"), item["metadata"].get("resourceVersion")
            if event["type"] == "MODIFIED" and self.versions.get(name) != version:
                self.count[name] += 1
                self.last = when
            self.versions[name], self.objects[name] = version, item
            if item["kind"] == "HTTPRoute" and name not in self.accepted_at and is_accepted(item):
                self.accepted_at[name] = when


def attached(gateway):
    return sum(listener["attachedRoutes"] for listener in gateway.get("status", {}).get("listeners", []))


def measure(site, count, bars):
    Server(9001)
    site.service("shop")
    site.gateway()
    time.sleep(2)
    watches = {}
    for name, path in (("routes", site.routes), ("gateways", site.gateways)):
        items, version = site.api.items(path)
        known = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}
        watches[name] = Writes(Watch(site.api, path, version), known)
    routes, gateways = watches["routes"], watches["gateways"]
    begun = time.time()
    site.api.each(count, lambda number: site.route(f"route-{number}", f"route-{number}.example", "shop"))
    created = time.time()
    print(f"{count} routes created in {created - begun:.1f} s")

    def is_right():
        routes.read()
        gateways.read()
        return len(routes.accepted_at) == count and attached(gateways.objects.get("web", {})) == count

    until("all statuses are right", is_right, 60, 0.005)
    last = max(routes.accepted_at.values())
    print(f"the last route is Accepted after {last - created:.2f} s, the Gateway is right after {gateways.last - created:.2f} s")
    bars.at_most("statuses are right after the last route", max(last, gateways.last) - created, BAR_SECONDS, " s")
    time.sleep(10)
    routes.read()
    gateways.read()
    by_writes = collections.Counter(routes.count[f"route-{number}"] for number in range(count))
    print("routes by writes: " + ", ".join(f"{writes}: {many}" for writes, many in sorted(by_writes.items())))
    bars.at_most("writes of a route", max(by_writes), BAR_WRITES)
    print(f"writes of the Gateway: {gateways.count['web']}")
    for one in watches.values():
        one.watch.stop()


def rest(api, seconds, bars):
    written = lambda: gateway_pods.metric_sum(api, "tallygate_kube_status_writes_total")
    before, watches = written(), {}
    for name, path in KINDS.items():
        watches[name] = Watch(api, path, api.items(path)[1])
    end, found = time.time() + seconds, collections.Counter()
    while time.time() < end:
        time.sleep(1)
        for name, watch in watches.items():
            for _, event in watch.taken():
                item, meta = event["object"], event["object"]["metadata"]
                is_foreign = name == "events" and item.get("reportingController") != CONTROLLER
                if meta.get("namespace") != "kube-system" and not is_foreign:
                    managers = sorted({field["manager"] for field in meta.get("managedFields", [])})
                    found[f"{event['type']} {name} {meta.get('namespace', '')}/{meta['name']} {managers}"] += 1
    for what, many in found.most_common(20):
        print(f"{many} x {what}")
    bars.equal(f"writes of all kinds in {seconds} s at rest", sum(found.values()), 0)
    bars.equal("growth of tallygate_kube_status_writes_total", written() - before, 0)


def main():
    parser = arguments(__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--rest", type=int, default=600)
    given = parser.parse_args()
    api, bars = Api(given.kubeconfig), Bars()
    if given.count:
        measure(Site(api, f"status-{int(time.time())}"), given.count, bars)
    rest(api, given.rest, bars)
    bars.end()


if __name__ == "__main__":
    main()
