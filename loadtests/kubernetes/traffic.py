"""Load of every protocol through one Gateway, and its books.

Kinds: `h1` (keep-alive), `new` (a connection for each request), `h2` (prior knowledge), `h2tls`, `grpc`, `ws` (echoes on
WebSockets). Each has a host, a route and so a subsystem of its own. Callers and servers are processes of this machine.

Callers are well-behaved: they honour `Connection: close` and GOAWAY, and WebSockets end by a close frame after a few
seconds. A request that gets no complete answer with 200, and an echo that does not come, is failed. Nothing is sent again,
but streams that a GOAWAY names as not processed.

Each request has a number. Client, servers, ledgers and metrics must agree on what was answered.

Needs Debian's python3-h2 and python3-grpcio: `scripts/need python3-h2 python3-grpcio`, and /usr/bin/python3.
"""

import http.client
import http.server
import multiprocessing
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import gateway_pods
import websocket
from cluster_api import NODE, is_live, until

HTTP_PORT, GRPC_PORT = 9011, 9012
KINDS = ("h1", "new", "h2", "h2tls", "grpc", "ws")
# Connections of each kind, and the requests (echoes) a second on each.
CONNECTIONS = {"h1": 4, "new": 2, "h2": 2, "h2tls": 2, "grpc": 2, "ws": 8}
RATES = {"h1": 25, "new": 25, "h2": 50, "h2tls": 50, "grpc": 25, "ws": 10}
STREAMS = 4
SESSION_SECONDS = 4
TIMEOUT = 40
FAILURES_SHOWN = 5
METHOD = "/load.Echo/Say"
processes = multiprocessing.get_context("spawn")


class Log:
    """What one caller saw."""

    def __init__(self):
        self.answered, self.failed, self.connections, self.told, self.echoes, self.resent = [], [], 0, 0, 0, 0

    def fail(self, number, why):
        self.failed.append((time.strftime("%H:%M:%S"), number, why))


class Pace:
    """Even turns. After a pause it does not catch up."""

    def __init__(self, rate):
        self.step, self.next = 1 / rate, time.time()

    def wait(self):
        now = time.time()
        self.next = max(self.next + self.step, now - self.step)
        time.sleep(max(0.0, self.next - now))


def call_h1(name, target, log, stopping):
    """Requests on one connection, as long as the gateway keeps it."""
    connection, pace, turn = http.client.HTTPConnection(target["address"], timeout=TIMEOUT), Pace(target["rate"]), 0
    while not stopping.is_set():
        turn, number = turn + 1, f"{name}-{turn}"
        try:
            log.connections += connection.sock is None
            connection.request("GET", "/", headers={"Host": target["host"], "x-number": number})
            response = connection.getresponse()
            response.read()
            log.told += response.will_close
            log.answered.append(number) if response.status == 200 else log.fail(number, str(response.status))
        except (OSError, http.client.HTTPException) as fault:
            log.fail(number, repr(fault))
            connection.close()
        pace.wait()


def call_new(name, target, log, stopping):
    """A connection for each request."""
    pace, turn = Pace(target["rate"]), 0
    while not stopping.is_set():
        turn, number = turn + 1, f"{name}-{turn}"
        connection = http.client.HTTPConnection(target["address"], timeout=TIMEOUT)
        try:
            log.connections += 1
            connection.request("GET", "/", headers={"Host": target["host"], "x-number": number, "Connection": "close"})
            response = connection.getresponse()
            response.read()
            log.answered.append(number) if response.status == 200 else log.fail(number, str(response.status))
        except (OSError, http.client.HTTPException) as fault:
            log.fail(number, repr(fault))
        finally:
            connection.close()
        pace.wait()


class Http2:
    """A connection over HTTP/2. It takes no new streams after a GOAWAY, and reads those that are under way to their end."""

    def __init__(self, target):
        import h2.config
        import h2.connection
        self.allow_frames_after_goaway(h2.connection)
        self.socket = socket.create_connection((target["address"], 443 if target["tls"] else 80), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target["tls"]:
            context = ssl._create_unverified_context()
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=target["host"])
        self.target = target
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.send()
        self.numbers, self.statuses, self.last_stream = {}, {}, None

    @staticmethod
    def allow_frames_after_goaway(module):
        """h2 4.1 closes its state machine at a GOAWAY, and would refuse the answers that are under way."""
        machine, state, given = module.H2ConnectionStateMachine, module.ConnectionState, module.ConnectionInputs
        machine._transitions[(state.CLIENT_OPEN, given.RECV_GOAWAY)] = (None, state.CLIENT_OPEN)

    def send(self):
        self.socket.sendall(self.h2.data_to_send())

    def takes_streams(self):
        return self.last_stream is None and len(self.numbers) < STREAMS

    def request(self, number):
        stream = self.h2.get_next_available_stream_id()
        self.numbers[stream] = number
        scheme = "https" if self.target["tls"] else "http"
        self.h2.send_headers(stream, [(":method", "GET"), (":scheme", scheme), (":authority", self.target["host"]),
                                      (":path", "/"), ("x-number", number)], end_stream=True)
        self.send()

    def read(self, log, seconds):
        """Reads for a time. Returns the numbers of streams that a GOAWAY refuses."""
        self.socket.settimeout(max(seconds, 0.001))
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return []
        if not data:
            raise ConnectionResetError("closed")
        refused = []
        for event in self.h2.receive_data(data):
            kind = type(event).__name__
            if kind == "ResponseReceived":
                self.statuses[event.stream_id] = dict(event.headers)[":status"]
            elif kind == "DataReceived":
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif kind == "StreamEnded":
                number, status = self.numbers.pop(event.stream_id), self.statuses.pop(event.stream_id, "none")
                log.answered.append(number) if status == "200" else log.fail(number, status)
            elif kind == "StreamReset":
                log.fail(self.numbers.pop(event.stream_id, "?"), f"reset {event.error_code}")
            elif kind == "ConnectionTerminated":
                log.told += self.last_stream is None
                self.last_stream = event.last_stream_id
                refused += [self.numbers.pop(stream) for stream in list(self.numbers) if stream > self.last_stream]
        self.send()
        return refused

    def close(self):
        self.socket.close()


def call_h2(name, target, log, stopping):
    """Several streams at once. Connections that leave are read beside the new one."""
    pace, turn, waiting, open_ones = Pace(target["rate"]), 0, [], []
    end = None
    while end is None or (time.time() < end and any(one.numbers for one in open_ones)):
        if end is None and stopping.is_set():
            end = time.time() + TIMEOUT
        try:
            fresh = next((one for one in open_ones if one.last_stream is None), None)
            if fresh is None and end is None:
                log.connections += 1
                fresh = Http2(target)
                open_ones.append(fresh)
            if fresh and fresh.takes_streams() and end is None:
                if not waiting:
                    turn += 1
                    waiting.append(f"{name}-{turn}")
                fresh.request(waiting.pop())
        except OSError as fault:
            log.fail(waiting.pop() if waiting else name, repr(fault))
            abandon(fresh, open_ones, log, fault)
        for one in list(open_ones):
            try:
                refused = one.read(log, 0.001 if one.last_stream is None else 0)
                log.resent += len(refused)
                waiting += refused
                if one.last_stream is not None and not one.numbers:
                    one.close()
                    open_ones.remove(one)
            except Exception as fault:  # h2's own faults have no common class with those of sockets
                if one.last_stream is not None and not one.numbers:
                    open_ones.remove(one)
                else:
                    abandon(one, open_ones, log, fault)
        pace.wait()
    for one in open_ones:
        for number in one.numbers.values():
            log.fail(number, "no answer")
        one.close()


def abandon(connection, open_ones, log, fault):
    if connection in open_ones:
        open_ones.remove(connection)
        for number in connection.numbers.values():
            log.fail(number, repr(fault))
        connection.close()


def call_grpc(name, target, log, stopping):
    """Unary calls on a channel, which makes its connections itself. Nothing is configured to be tried again."""
    import grpc
    options = [("grpc.default_authority", target["host"]), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(f"{target['address']}:80", options)
    say, pace, turn = channel.unary_unary(METHOD), Pace(target["rate"]), 0
    log.connections = 1
    while not stopping.is_set():
        turn, number = turn + 1, f"{name}-{turn}"
        try:
            answer = say(number.encode(), timeout=TIMEOUT)
            log.answered.append(number) if answer == number.encode() else log.fail(number, "other answer")
        except grpc.RpcError as fault:
            log.fail(number, f"{fault.code()} {fault.details()}")
        pace.wait()
    channel.close()


def grpc_answers(address):
    """Whether a gRPC call on a new connection succeeds."""
    import grpc
    with grpc.insecure_channel(f"{address}:80", [("grpc.default_authority", "grpc.example"),
                                                 ("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return channel.unary_unary(METHOD)(b"warm", timeout=5) == b"warm"
        except grpc.RpcError:
            return False


def call_ws(name, target, log, stopping):
    """Sessions of a few seconds with echoes. A session is one command."""
    turn = 0
    while not stopping.is_set():
        turn, number = turn + 1, f"{name}-{turn}"
        try:
            log.connections += 1
            session(number, target, log, stopping)
            log.answered.append(number)
        except (OSError, ValueError) as fault:
            log.fail(number, repr(fault))
            time.sleep(0.05)


def session(number, target, log, stopping):
    with socket.create_connection((target["address"], 80), TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = websocket.new_key()
        connection.sendall((f"GET / HTTP/1.1\r\nHost: {target['host']}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nx-number: {number}\r\n\r\n").encode())
        stream, pace = connection.makefile("rb"), Pace(target["rate"])
        first = stream.readline().decode()
        if " 101 " not in first:
            raise ValueError(f"no WebSocket: {first.strip()}")
        while stream.readline() not in (b"\r\n", b""):
            pass
        end, turn = time.time() + SESSION_SECONDS, 0
        while time.time() < end and not stopping.is_set():
            turn, text = turn + 1, f"{number}-{turn}".encode()
            connection.sendall(websocket.frame(websocket.TEXT, text, masked=True))
            if websocket.read_frame(stream) != (websocket.TEXT, text):
                raise ValueError(f"echo {turn} is lost")
            log.echoes += 1
            pace.wait()
        connection.sendall(websocket.frame(websocket.CLOSE, b"\x03\xe8", masked=True))
        answer = websocket.read_frame(stream)
        if not answer or answer[0] != websocket.CLOSE:
            raise ValueError("no close frame")


CALLS = {"h1": call_h1, "new": call_new, "h2": call_h2, "h2tls": call_h2, "grpc": call_grpc, "ws": call_ws}


def run_callers(kind, target, stopping, results):
    """The callers of a kind: a process with a thread for each connection."""
    logs = [Log() for _ in range(CONNECTIONS[kind])]
    call = CALLS[kind]
    threads = [threading.Thread(target=call, args=(f"{kind}-{place}", target, log, stopping))
               for place, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Log()
    for log in logs:
        for field in vars(whole):
            setattr(whole, field, getattr(whole, field) + getattr(log, field))
    results.put((kind, whole))


def run_servers(ready, stopping, results):
    """Servers for all kinds, which note the number of each request that they have answered."""
    import grpc
    from concurrent import futures
    seen, echoes = [], [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            seen.append(self.headers.get("x-number", "warm"))
            if self.headers.get("Upgrade", "").lower() == "websocket":
                self.echo()
                return
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def echo(self):
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", websocket.accept_of(self.headers["Sec-WebSocket-Key"]))
            self.end_headers()
            self.close_connection = True
            while (read := websocket.read_frame(self.rfile)) is not None:
                kind, content = read
                echoes[0] += kind == websocket.TEXT
                self.wfile.write(websocket.frame(kind, content, masked=False))
                if kind == websocket.CLOSE:
                    return

        def log_message(self, *_):
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            pass  # a caller has left

    def say(request, _context):
        seen.append(request.decode())
        return request

    web = Quiet((NODE, HTTP_PORT), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
        service, {method: grpc.unary_unary_rpc_method_handler(say)})])
    server.add_insecure_port(f"{NODE}:{GRPC_PORT}")
    server.start()
    ready.set()
    stopping.wait()
    results.put(("servers", (seen, echoes[0])))
    results.close()
    results.join_thread()
    os._exit(0)  # threads of both servers would hold the process


def make_certificate(folder, name):
    """A self-signed certificate and its key, as texts."""
    key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "certificate.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name}"], check=True, stderr=subprocess.DEVNULL)
    with open(key, encoding="ascii") as one, open(certificate, encoding="ascii") as other:
        return other.read(), one.read()


def make_objects(site):
    """A Gateway with a listener for HTTP and one for HTTPS, and a route for each kind. Returns the address."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = make_certificate(folder, "h2tls.example")
    site.api.apply(site.secrets, {
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "web-tls"},
        "stringData": {"tls.crt": certificate, "tls.key": key}})
    address = site.gateway(listeners=[
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "web-tls"}]}}])
    site.service("web", (HTTP_PORT,))
    site.service("grpc", (GRPC_PORT,), protocol="kubernetes.io/h2c")
    for kind in KINDS:
        if kind == "grpc":
            site.route(kind, "grpc.example", "grpc", kind="GRPCRoute")
        else:
            site.route(kind, f"{kind}.example", "web")
    return address


class Traffic:
    """Load of all kinds (or some), from `start` to `stop`."""

    def __init__(self, site, kinds=KINDS):
        self.site, self.kinds = site, kinds
        self.stopping, self.servers_stop, self.results = processes.Event(), processes.Event(), processes.Queue()
        self.found, self.seen, self.echoes = {}, [], 0

    def start(self):
        ready = processes.Event()
        self.servers = processes.Process(target=run_servers, args=(ready, self.servers_stop, self.results), daemon=True)
        self.servers.start()
        if not ready.wait(30):
            raise SystemExit("the servers do not start")
        address = make_objects(self.site)
        self.wait_until_live(address)
        time.sleep(1)
        self.before, self.series_before = gateway_pods.usage(self.site.api, self.site.namespace), self.ok_series()
        self.callers = []
        for kind in self.kinds:
            target = {"address": address, "host": f"{kind}.example", "rate": RATES[kind], "tls": kind == "h2tls"}
            self.callers.append(processes.Process(target=run_callers, args=(kind, target, self.stopping, self.results),
                                                  daemon=True))
        for caller in self.callers:
            caller.start()

    def wait_until_live(self, address):
        """Until both pods have answered each host many times: a pod may be later than another one."""
        for kind in self.kinds:
            if kind != "grpc":
                until(f"{kind} answers", lambda: is_live(address, f"{kind}.example"))
        if "grpc" in self.kinds:
            until("grpc answers", lambda: all(grpc_answers(address) for _ in range(10)))

    def stop(self):
        self.stopping.set()
        for _ in self.kinds:
            kind, log = self.results.get(timeout=TIMEOUT * 2)
            self.found[kind] = log
        self.servers_stop.set()
        _, (self.seen, self.echoes) = self.results.get(timeout=TIMEOUT)
        time.sleep(1.5)  # the last ends reach the ledgers

    def subsystem(self, kind):
        return f"{self.site.namespace}.{kind}" + ("_grpc" if kind == "grpc" else "")

    def ok_series(self):
        """Commands that /metrics shows as `ok`, by subsystem, over all pods."""
        found = {}
        for address in gateway_pods.addresses(self.site.api).values():
            for series, value in gateway_pods.metrics(address).items():
                if series.startswith("tallygate_commands_total{") and 'outcome="ok"' in series:
                    subsystem = series.split('subsystem="')[1].split('"')[0]
                    found[subsystem] = found.get(subsystem, 0) + int(value)
        return found

    def read_books(self):
        self.usage, self.series = gateway_pods.usage(self.site.api, self.site.namespace), self.ok_series()

    def books(self, kind):
        """What each side counted since the start: callers, servers, ledgers and /metrics."""
        log, name = self.found[kind], self.subsystem(kind)
        rows = {outcome: count - self.before.get((subsystem, outcome), 0)
                for (subsystem, outcome), count in self.usage.items() if subsystem == name}
        rows = {outcome: count for outcome, count in rows.items() if count}
        seen = [number for number in self.seen if number.startswith(f"{kind}-")]
        return {"answered": len(log.answered), "failed": len(log.failed), "servers": len(seen),
                "not at servers": len(set(log.answered) - set(seen)), "ok": rows.pop("ok", 0), "others": rows,
                "metrics": self.series.get(name, 0) - self.series_before.get(name, 0)}

    def show(self, kind, books):
        log = self.found[kind]
        others = " ".join(f"{outcome}={count}" for outcome, count in books["others"].items()) or "-"
        print(f"{kind:6} answered={books['answered']} failed={books['failed']} servers={books['servers']} "
              f"ledgers: ok={books['ok']} others: {others} metrics={books['metrics']} connections={log.connections} "
              f"told to leave={log.told} resent={log.resent} echoes={log.echoes}")
        if log.failed:
            print(f"       failed between {min(log.failed)[0]} and {max(log.failed)[0]}")
        for when, number, why in log.failed[:FAILURES_SHOWN]:
            print(f"       {when} {number}: {why}")
