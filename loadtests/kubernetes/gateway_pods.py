"""The pods of the gateway: their processes, memory, metrics, ledgers and roll-outs.

Scripts run in the PID namespace of the cluster, so the processes in the pods are in /proc, with the files of their
containers below `root`.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import time

from cluster_api import SYSTEM, WAIT, group_path, until

STATEFUL_SET = group_path("apps", "v1", SYSTEM, "statefulsets") + "/tallygate"
PODS = group_path("", "v1", SYSTEM, "pods")
ADMIN_PORT = 9090
LEDGER = "ledger.db"
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """The gateway in a pod."""

    def __init__(self, pid, pod):
        self.pid, self.pod = pid, pod

    def file(self, path):
        return f"/proc/{self.pid}/root{path}"

    def memory_mib(self):
        """Resident memory now, and the most so far."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as read:
            text = read.read()
        at = lambda name: int(re.search(rf"{name}:\s+(\d+) kB", text).group(1)) / 1024
        return at("VmRSS"), at("VmHWM")

    def forget_peak(self):
        with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as out:
            out.write("5")

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as read:
            fields = read.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cpu_percent(self, seconds):
        before = self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / seconds * 100

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


def processes_with(is_wanted):
    """Process ids and command lines."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as read:
                    words = read.read().decode(errors="replace").split("\0")
            except OSError:
                continue  # it has ended
            if is_wanted(words):
                yield int(name), words


def gateways():
    """The running gateways by the names of their pods."""
    found = {}
    for pid, _ in processes_with(lambda words: words[0].endswith("tallygate") and "controller" in words):
        try:
            with open(f"/proc/{pid}/environ", "rb") as read:
                name = re.search(rb"POD_NAME=([^\0]+)", read.read())
        except OSError:
            continue
        if name:
            found[name.group(1).decode()] = Process(pid, name.group(1).decode())
    return dict(sorted(found.items()))


def api_server():
    """The process id of the API server."""
    return next(pid for pid, _ in processes_with(lambda words: "kube-apiserver" in words[:3]))


def pod(api, name):
    return api.get(f"{PODS}/{name}")


def addresses(api):
    """The addresses of the pods by name."""
    pods, _ = api.items(PODS + "?labelSelector=app.kubernetes.io%2Fname%3Dtallygate")
    return {one["metadata"]["name"]: one["status"].get("podIP") for one in pods}


def admin(address, path):
    """Status and text of the admin port of a pod; status 0 if it does not answer."""
    connection = http.client.HTTPConnection(address, ADMIN_PORT, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def metrics(address):
    """All series of a pod: the text before the value, and the value."""
    _, text = admin(address, "/metrics")
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def metric_sum(api, family, label=""):
    """The sum of a family over all pods and series with this text in their labels."""
    return sum(value for address in addresses(api).values() for name, value in metrics(address).items()
               if name.split("{")[0] == family and label in name)


def ledgers(api):
    """The books of all pods, also of those that were scaled in: files in the folders of their volumes."""
    volumes, _ = api.items(group_path("", "v1", "", "persistentvolumes"))
    for volume in volumes:
        claim, spec = volume["spec"]["claimRef"], volume["spec"]
        if claim["namespace"] == SYSTEM and claim["name"].startswith("ledger-"):
            folder = (spec.get("hostPath") or spec.get("local"))["path"]
            yield os.path.join(folder, LEDGER)


def usage(api, namespace, by="subsystem,outcome"):
    """Commands in the ledgers of all pods together, by subsystem and outcome: one report over all ledgers."""
    program = next(iter(gateways().values())).file("/tallygate")
    line = [program, "report", "usage", "--format", "json", "--by", f"namespace,{by}"]
    for ledger in sorted(ledgers(api)):
        line += ["--ledger", ledger]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}: {done.stderr.decode()}")
    rows = [row for row in json.loads(done.stdout)["rows"] if row["namespace"] == namespace]
    return {tuple(row[key] for key in by.split(",")): row["commands"] for row in rows}


def replicas(api, count):
    api.merge(STATEFUL_SET, {"spec": {"replicas": count}})
    rolled_out(api)
    until("the other pods are gone", lambda: len(addresses(api)) == count)


def rolled_out(api, seconds=300):
    """Waits until every pod is of the newest revision, and ready."""
    def is_done():
        found = api.get(STATEFUL_SET)
        status, wanted = found["status"], found["spec"]["replicas"]
        return status.get("observedGeneration") == found["metadata"]["generation"] and \
            status.get("updateRevision") == status.get("currentRevision") and \
            status.get("readyReplicas", 0) == status.get("availableReplicas", 0) == wanted
    until("the pods are rolled out", is_done, seconds, 0.2)


def restart(api):
    """What `kubectl rollout restart` does."""
    at = {"kubectl.kubernetes.io/restartedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    api.merge(STATEFUL_SET, {"spec": {"template": {"metadata": {"annotations": at}}}})


def image(api):
    return api.get(STATEFUL_SET)["spec"]["template"]["spec"]["containers"][0]["image"]


def set_image(api, name):
    """What `kubectl set image` does."""
    containers = [{"name": "tallygate", "image": name}]
    api.call("PATCH", STATEFUL_SET, {"spec": {"template": {"spec": {"containers": containers}}}},
             "application/strategic-merge-patch+json")


def killed_and_ready_again(api, name, seconds=WAIT):
    """Kills the process of a pod with SIGKILL, and waits until the pod is ready again."""
    starts = lambda: pod(api, name)["status"]["containerStatuses"][0]["restartCount"]
    before = starts()
    gateways()[name].kill()
    is_back = lambda: starts() > before and pod(api, name)["status"]["containerStatuses"][0]["ready"]
    until(f"{name} is ready again", is_back, seconds)
