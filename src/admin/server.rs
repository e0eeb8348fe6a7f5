//! The server of the admin listener: connections, limits, drain.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{BoxError, Service, ServiceBuilder};

use crate::lifecycle::DrainWatcher;
use crate::telemetry::{LimitHit, Telemetry};

use super::AdminState;
use super::answer::{Answer, problem};
use super::endpoint::handle;

/// Connections of operators and scrapers at once.
const CONNECTIONS: usize = 64;
/// Requests at work at once; more are refused.
const REQUESTS: usize = 8;
/// For a whole request head.
const HEAD: Duration = Duration::from_secs(10);
/// For a whole answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves operators until the drain begins, then finishes what was begun.
pub async fn serve(listener: TcpListener, state: AdminState, mut drain: DrainWatcher) {
    let telemetry = Arc::clone(&state.telemetry);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let service = stack(state);
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&places).try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => {
                tokio::spawn(connection(stream, service.clone(), place, drain.clone()));
            }
            (Ok(_), Err(_)) => telemetry.limit_hit(LimitHit::AdminConnections),
            (Err(error), _) => {
                tracing::warn!(%error, "the admin listener could not accept a connection; it tries again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The uniform part: at most so many requests at once, each for at most so long.
fn stack(
    state: AdminState,
) -> impl Service<Request<Incoming>, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + 'static {
    let telemetry = Arc::clone(&state.telemetry);
    ServiceBuilder::new()
        .map_result(move |result: Result<Answer, BoxError>| {
            Ok::<_, BoxError>(result.unwrap_or_else(|error| failed(&telemetry, &error)))
        })
        .load_shed()
        .concurrency_limit(REQUESTS)
        .timeout(ANSWER)
        .service_fn(move |request: Request<Incoming>| {
            let state = state.clone();
            async move { Ok::<_, BoxError>(handle(&state, &request.into_parts().0).await) }
        })
}

fn failed(telemetry: &Telemetry, error: &BoxError) -> Answer {
    if error.is::<tower::load_shed::error::Overloaded>() {
        telemetry.limit_hit(LimitHit::AdminRequests);
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests are at work here; try again in a moment");
    }
    problem(StatusCode::GATEWAY_TIMEOUT, "the answer took longer than 30 seconds; ask for less")
}

async fn connection<S>(stream: TcpStream, service: S, _place: OwnedSemaphorePermit, mut drain: DrainWatcher)
where
    S: Service<Request<Incoming>, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = drain.begun() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin listener ended early");
    }
}
