//! The server of the admin listener: connections, limits, drain. Knows nothing of what is asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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

use super::AdminState;
use super::answer::{Answer, problem};
use super::endpoint::handle;
use super::hosts;
use super::places::{Place, Places, Work};

/// Requests at work at once; more are refused.
const REQUESTS: usize = 8;
/// For a whole request head, and for a connection without a request.
const HEAD: Duration = Duration::from_secs(5);
/// For a whole answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers requests, with all limits around it.
trait Stack:
    Service<Request<Incoming>, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + 'static
{
}

impl<S> Stack for S where
    S: Service<Request<Incoming>, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + 'static
{
}

/// Serves operators until the drain begins, then finishes what was begun. Must run inside a tokio runtime.
pub async fn serve(listener: TcpListener, state: AdminState, drain: DrainWatcher) {
    let telemetry = Arc::clone(&state.telemetry);
    let hosts = Arc::clone(&state.hosts);
    let answering = move |request: Parts| {
        let state = state.clone();
        async move { handle(&state, &request).await }
    };
    accept(listener, stack(Arc::clone(&telemetry), hosts, answering), telemetry, drain).await;
}

async fn accept(listener: TcpListener, stack: impl Stack, telemetry: Arc<Telemetry>, mut drain: DrainWatcher) {
    let places = Arc::new(Places::default());
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept a connection; it tries again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (place, made_room) = places.take(address);
        if made_room || place.is_none() {
            telemetry.limit_hit(LimitHit::AdminConnections);
        }
        if let Some(place) = place {
            tokio::spawn(connection(stream, stack.clone(), place, drain.clone()));
        }
    }
}

/// At most so many requests at once, each for at most so long, and only for hosts that are answered.
fn stack<F>(
    telemetry: Arc<Telemetry>,
    hosts: Arc<[String]>,
    answering: impl Fn(Parts) -> F + Clone + Send + 'static,
) -> impl Stack
where
    F: Future<Output = Answer> + Send + 'static,
{
    ServiceBuilder::new()
        .map_result(move |result: Result<Answer, BoxError>| {
            Ok::<_, BoxError>(result.unwrap_or_else(|error| failed(&telemetry, &error)))
        })
        .load_shed()
        .concurrency_limit(REQUESTS)
        .timeout(ANSWER)
        .service_fn(move |request: Request<Incoming>| {
            let request = request.into_parts().0;
            let answer = match hosts::check(&request, &hosts) {
                Ok(()) => Either::Left(answering(request)),
                Err(answer) => Either::Right(ready(*answer)),
            };
            async move { Ok::<_, BoxError>(answer.await) }
        })
}

fn failed(telemetry: &Telemetry, error: &BoxError) -> Answer {
    if error.is::<tower::load_shed::error::Overloaded>() {
        telemetry.limit_hit(LimitHit::AdminRequests);
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests are at work here; try again in a moment");
    }
    problem(StatusCode::GATEWAY_TIMEOUT, "the answer took longer than 30 seconds; ask for less")
}

async fn connection(stream: TcpStream, stack: impl Stack, place: Place, mut drain: DrainWatcher) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let place = Arc::new(place);
    let answering = Answering { stack, place: Arc::clone(&place) };
    let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(stream), answering));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = place.is_needed() => return, // closed at once: nothing of it is being answered
        () = drain.begun() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin listener ended early");
    }
}

/// Answers the requests of one connection, which keeps its place meanwhile.
struct Answering<S> {
    stack: S,
    place: Arc<Place>,
}

impl<S: Stack> hyper::service::Service<Request<Incoming>> for Answering<S> {
    type Response = Answer;
    type Error = BoxError;
    type Future = AtWork<Oneshot<S, Request<Incoming>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        AtWork { answer: Box::pin(self.stack.clone().oneshot(request)), _work: self.place.work() }
    }
}

/// An answer on its way.
struct AtWork<F> {
    answer: Pin<Box<F>>,
    _work: Work,
}

impl<F: Future> Future for AtWork<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.answer.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::answer::{TEXT, answer};
    use crate::admin::places::CONNECTIONS;
    use crate::lifecycle::{DrainTrigger, drain};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Served {
        address: SocketAddr,
        telemetry: Arc<Telemetry>,
        trigger: DrainTrigger,
    }

    /// A server that answers each path with itself, but `/slow` never.
    async fn served() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let telemetry = Telemetry::new();
        let (trigger, watcher) = drain();
        let answering = |request: Parts| async move {
            if request.uri.path() == "/slow" {
                std::future::pending::<()>().await;
            }
            answer(StatusCode::OK, TEXT, request.uri.path().to_owned())
        };
        let stack = stack(Arc::clone(&telemetry), Arc::new([]), answering);
        tokio::spawn(accept(listener, stack, Arc::clone(&telemetry), watcher));
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
    async fn head_is_answered_as_get_without_the_body() {
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
    async fn a_drain_closes_idle_connections_and_ends() {
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
    async fn requests_beyond_the_limit_are_refused_and_counted() {
        let served = served().await;
        let mut slow = Vec::new();
        for _ in 0..REQUESTS {
            slow.push(asked(served.address, "GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await);
        }
        // Accepted in order on one thread, so the slow ones are at work when this one comes.
        let request = "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let text = rest(asked(served.address, request).await).await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("too many requests"), "{text}");
        assert_eq!(served.telemetry.limit_hits(LimitHit::AdminRequests), 1);
        drop(slow);
    }

    #[tokio::test]
    async fn a_probe_is_answered_beside_any_number_of_silent_and_slow_connections() {
        let served = served().await;
        let mut held = Vec::new();
        for n in 0..2 * CONNECTIONS {
            let head = ["", "GET /x HTT", "GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n"][n % 3];
            held.push(asked(served.address, head).await);
        }
        let request = "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let text = rest(asked(served.address, request).await).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(served.telemetry.limit_hits(LimitHit::AdminConnections) > 0);
    }

    #[tokio::test]
    async fn a_foreign_host_is_not_answered() {
        let served = served().await;
        for (host, status) in [("host: evil.example\r\n", "421"), ("", "400"), ("host: 127.0.0.1:9090\r\n", "200")] {
            let request = format!("GET /x HTTP/1.1\r\n{host}connection: close\r\n\r\n");
            let text = rest(asked(served.address, &request).await).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {text}");
        }
    }
}
