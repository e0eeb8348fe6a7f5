//! The HTTP server of the admin listener.
//!
//! Guarantees:
//! - Connections, requests, request heads and response times have limits. Requests above the limit are rejected (load
//!   shedding).
//! - The host of every request is checked before it is handled.
//! - A drain closes idle connections and finishes the requests in progress (graceful shutdown).
//!
//! Leaves to others: the endpoints (`endpoints`), and which connection is evicted (`connection_limit`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{Either, ready};
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::util::Oneshot;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};

use crate::lifecycle::DrainWatcher;
use crate::telemetry::{LimitHit, Telemetry};

use super::connection_limit::{AdminConnections, AdminPermit, BusyGuard};
use super::endpoints::handle_request;
use super::host_check;
use super::response::{AdminResponse, problem_response};
use super::state::AdminState;

/// The maximum of concurrent requests; more are rejected (load shedding).
const REQUESTS_MAX: usize = 8;
/// The timeout for a request head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of a request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The pause after a failed accept, which usually means that file descriptors are exhausted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The service that handles requests, with all its limits.
trait AdminService:
    Service<Request<Incoming>, Response = AdminResponse, Error = BoxError, Future: Send> + Clone + Send + 'static
{
}

impl<S> AdminService for S where
    S: Service<Request<Incoming>, Response = AdminResponse, Error = BoxError, Future: Send> + Clone + Send + 'static
{
}

/// Serves operators until the drain begins. The socket is closed when it returns; the requests in progress finish after
/// that, in tasks of their own. Must run inside a tokio runtime.
pub async fn serve_admin(listener: TcpListener, state: AdminState, drain: DrainWatcher) {
    let telemetry = Arc::clone(&state.telemetry);
    let hosts = Arc::clone(&state.hosts);
    let handler = move |request: Parts| {
        let state = state.clone();
        async move { handle_request(&state, &request).await }
    };
    accept_connections(listener, limited_service(Arc::clone(&telemetry), hosts, handler), telemetry, drain).await;
}

async fn accept_connections(
    listener: TcpListener,
    service: impl AdminService,
    telemetry: Arc<Telemetry>,
    mut drain: DrainWatcher,
) {
    let connections = Arc::new(AdminConnections::default());
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "admin listener: accept failed; retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (permit, made_room) = connections.try_acquire(address);
        if made_room || permit.is_none() {
            telemetry.count_limit_hit(LimitHit::AdminConnections);
        }
        if let Some(permit) = permit {
            tokio::spawn(serve_connection(stream, service.clone(), permit, drain.clone()));
        }
    }
}

/// Adds the limits to a handler: the check of the host, a timeout, and at most [`REQUESTS_MAX`] concurrent requests
/// with load shedding.
fn limited_service<F>(
    telemetry: Arc<Telemetry>,
    hosts: Arc<ArcSwap<Vec<String>>>,
    handler: impl Fn(Parts) -> F + Clone + Send + 'static,
) -> impl AdminService
where
    F: Future<Output = AdminResponse> + Send + 'static,
{
    ServiceBuilder::new()
        .map_result(move |result: Result<AdminResponse, BoxError>| {
            Ok::<_, BoxError>(result.unwrap_or_else(|error| service_error(&telemetry, &error)))
        })
        .load_shed()
        .concurrency_limit(REQUESTS_MAX)
        .timeout(RESPONSE_TIMEOUT)
        .service_fn(move |request: Request<Incoming>| {
            let request = request.into_parts().0;
            let response = match host_check::check_host(&request, &hosts.load()) {
                Ok(()) => Either::Left(handler(request)),
                Err(response) => Either::Right(ready(*response)),
            };
            async move { Ok::<_, BoxError>(response.await) }
        })
}

fn service_error(telemetry: &Telemetry, error: &BoxError) -> AdminResponse {
    if error.is::<tower::load_shed::error::Overloaded>() {
        telemetry.count_limit_hit(LimitHit::AdminRequests);
        return problem_response(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent requests; retry later");
    }
    problem_response(StatusCode::GATEWAY_TIMEOUT, "the response took longer than 30 seconds; request a shorter range")
}

async fn serve_connection(stream: TcpStream, service: impl AdminService, permit: AdminPermit, mut drain: DrainWatcher) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let permit = Arc::new(permit);
    let service = ConnectionService { service, permit: Arc::clone(&permit) };
    let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = permit.wait_evicted() => return, // closed at once: no request is in progress
        () = drain.begun() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin listener was closed early");
    }
}

/// The service of one connection. Holds the connection's permit.
struct ConnectionService<S> {
    service: S,
    permit: Arc<AdminPermit>,
}

impl<S: AdminService> hyper::service::Service<Request<Incoming>> for ConnectionService<S> {
    type Response = AdminResponse;
    type Error = BoxError;
    type Future = TrackedResponse<Oneshot<S, Request<Incoming>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        TrackedResponse {
            response: Box::pin(self.service.clone().oneshot(request)),
            busy: Some(self.permit.begin_request()),
        }
    }
}

/// A response in progress. The connection is busy until its body has been passed on.
struct TrackedResponse<F> {
    response: Pin<Box<F>>,
    busy: Option<BusyGuard>,
}

impl<F: Future<Output = Result<AdminResponse, BoxError>>> Future for TrackedResponse<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut response = std::task::ready!(self.response.as_mut().poll(context));
        if let (Ok(response), Some(busy)) = (&mut response, self.busy.take()) {
            response.body_mut().hold(busy);
        }
        Poll::Ready(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::connection_limit::CONNECTIONS_MAX;
    use crate::admin::response::{TEXT_TYPE, respond};
    use crate::lifecycle::{DrainTrigger, drain};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Served {
        address: SocketAddr,
        telemetry: Arc<Telemetry>,
        trigger: DrainTrigger,
    }

    /// A server that responds to each path with that path, and to `/slow` never.
    async fn served() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let telemetry = Telemetry::new();
        let (trigger, watcher) = drain();
        let answering = |request: Parts| async move {
            if request.uri.path() == "/slow" {
                std::future::pending::<()>().await;
            }
            respond(StatusCode::OK, TEXT_TYPE, request.uri.path().to_owned())
        };
        let service = limited_service(Arc::clone(&telemetry), Arc::default(), answering);
        tokio::spawn(accept_connections(listener, service, Arc::clone(&telemetry), watcher));
        Served { address, telemetry, trigger }
    }

    async fn asked(address: SocketAddr, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it closes");
        text
    }

    #[tokio::test]
    async fn head_response_equals_get_without_the_body() {
        let served = served().await;
        for (method, body) in [("GET", "/x"), ("HEAD", "")] {
            let request = format!("{method} /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let text = rest(asked(served.address, &request).await).await;
            let (head, shown) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("content-length: 2"), "{head}");
            assert_eq!(shown, body);
        }
    }

    #[tokio::test]
    async fn drain_closes_idle_connections_and_completes() {
        let served = served().await;
        let mut idle = asked(served.address, "GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut first = [0; 15];
        idle.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        served.trigger.begin();
        assert!(rest(idle).await.ends_with("/x"));
        served.trigger.done().await;
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test]
    async fn requests_over_the_limit_are_refused_and_counted() {
        let served = served().await;
        let mut slow = Vec::new();
        for _ in 0..REQUESTS_MAX {
            slow.push(asked(served.address, "GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await);
        }
        // Connections are accepted in order on one thread, so the slow requests are in progress when this one arrives.
        let request = "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let text = rest(asked(served.address, request).await).await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("too many concurrent requests"), "{text}");
        assert_eq!(served.telemetry.limit_hit_count(LimitHit::AdminRequests), 1);
        drop(slow);
    }

    #[tokio::test]
    async fn probe_is_answered_while_connections_are_silent_or_slow() {
        let served = served().await;
        let mut held = Vec::new();
        for n in 0..2 * CONNECTIONS_MAX {
            let head = ["", "GET /x HTT", "GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n"][n % 3];
            held.push(asked(served.address, head).await);
        }
        let request = "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let text = rest(asked(served.address, request).await).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(served.telemetry.limit_hit_count(LimitHit::AdminConnections) > 0);
    }

    #[tokio::test]
    async fn foreign_host_is_refused() {
        let served = served().await;
        for (host, status) in [("host: evil.example\r\n", "421"), ("", "400"), ("host: 127.0.0.1:9090\r\n", "200")] {
            let request = format!("GET /x HTTP/1.1\r\n{host}connection: close\r\n\r\n");
            let text = rest(asked(served.address, &request).await).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {text}");
        }
    }
}
