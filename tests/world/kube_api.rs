//! A Kubernetes API server for the real binary, over plain HTTP: versions, lists in pages, watches, and whatever is
//! written is taken. Its end breaks all connections, as that of a real one does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tallygate::kube::objects::ObjectKind;
use tokio::sync::{oneshot, watch};

use super::subsystem::listen;

type ApiResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server. Dropping it ends it with all its connections.
pub struct KubeApi {
    state: Arc<ApiState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Objects by the plural of their kind, and the events of watches.
struct ApiState {
    objects: Mutex<BTreeMap<String, Vec<Value>>>,
    /// Each change of an object: the plural, and the event.
    events: watch::Sender<Vec<(String, Value)>>,
    /// What was written: method, path and object.
    written: Mutex<Vec<(Method, String, Value)>>,
    leases: Mutex<BTreeMap<String, Value>>,
}

impl KubeApi {
    /// Starts a server at an address, with these objects of each plural.
    pub fn start_at(address: SocketAddr, objects: &[(&str, Value)]) -> Self {
        let mut by_plural: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (plural, object) in objects {
            by_plural.entry((*plural).to_owned()).or_default().push(versioned(object.clone(), 1));
        }
        let state = Arc::new(ApiState {
            objects: Mutex::new(by_plural),
            events: watch::channel(Vec::new()).0,
            written: Mutex::default(),
            leases: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (bound, ready) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = listen(address);
                bound.send(()).unwrap();
                tokio::select! { () = serve(shared, listener) => {}, _ = stopped => {} }
            });
        });
        ready.recv().unwrap();
        Self { state, stop: Some(stop), thread: Some(thread) }
    }

    /// Adds an object, and shows it to the watches.
    pub fn add(&self, plural: &str, object: Value) {
        let mut objects = self.state.objects.lock().unwrap();
        let version = self.state.events.borrow().len() + 2;
        let object = versioned(object, version);
        objects.entry(plural.to_owned()).or_default().push(object.clone());
        self.state.events.send_modify(|events| {
            events.push((plural.to_owned(), json!({ "type": "ADDED", "object": object })));
        });
    }

    /// The paths of what was written with this method.
    pub fn written(&self, method: &Method) -> Vec<String> {
        let written = self.state.written.lock().unwrap();
        written.iter().filter(|(with, ..)| with == method).map(|(_, path, _)| path.clone()).collect()
    }

    /// The events that were written.
    pub fn events(&self) -> Vec<Value> {
        let written = self.state.written.lock().unwrap();
        written.iter().filter(|(_, path, _)| path.ends_with("/events")).map(|(.., event)| event.clone()).collect()
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

/// Writes a kubeconfig for a server at this address.
pub fn write_kubeconfig(folder: &Path, address: SocketAddr) -> PathBuf {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{ name: test, cluster: {{ server: \"http://{address}\" }} }}]\n\
         contexts: [{{ name: test, context: {{ cluster: test, user: test, namespace: default }} }}]\n\
         users: [{{ name: test, user: {{ token: test }} }}]\n"
    );
    let path = folder.join("kubeconfig");
    std::fs::write(&path, text).unwrap();
    path
}

fn versioned(mut object: Value, version: usize) -> Value {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object["metadata"]["uid"] = json!(format!("uid-{}", object["metadata"]["name"]));
    object["metadata"]["generation"] = json!(1);
    object
}

async fn serve(state: Arc<ApiState>, listener: tokio::net::TcpListener) {
    let mut connections = tokio::task::JoinSet::new(); // they end with it
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(respond(&state, request).await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(state: &Arc<ApiState>, request: Request<Incoming>) -> ApiResponse {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    if head.method != Method::GET {
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return write(state, &head.method, &path, &body);
    }
    if path.contains("/leases/") {
        let lease = state.leases.lock().unwrap().get(&path).cloned();
        return lease.map_or_else(|| status(StatusCode::NOT_FOUND, "NotFound"), |lease| answer(StatusCode::OK, &lease));
    }
    let plural = path.rsplit('/').next().unwrap_or_default();
    let is_kind = ObjectKind::ALL.iter().any(|kind| kind.api().plural == plural);
    match (is_kind, query.contains_key("watch")) {
        (false, _) => answer(StatusCode::OK, &versions(&path)),
        (true, false) => list(state, plural),
        // Lists come in pages here.
        (true, true) if query.contains_key("sendInitialEvents") => status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        (true, true) => follow(state, plural, query.get("resourceVersion").map_or("1", String::as_str)),
    }
}

/// Takes what is written.
fn write(state: &ApiState, method: &Method, path: &str, body: &[u8]) -> ApiResponse {
    let mut object: Value = serde_json::from_slice(body).unwrap_or_default();
    state.written.lock().unwrap().push((method.clone(), path.to_owned(), object.clone()));
    if path.contains("/leases") {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let place = if *method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
        object = versioned(object, state.written.lock().unwrap().len());
        state.leases.lock().unwrap().insert(place, object.clone());
    }
    answer(if *method == Method::POST { StatusCode::CREATED } else { StatusCode::OK }, &object)
}

fn versions(path: &str) -> Value {
    let resources = ObjectKind::ALL.map(|kind| {
        let api = kind.api();
        json!({ "name": api.plural, "singularName": "", "namespaced": api.namespaced, "kind": api.kind, "verbs": [] })
    });
    let group_version = path.trim_start_matches("/apis/");
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources })
}

fn list(state: &ApiState, plural: &str) -> ApiResponse {
    let objects = state.objects.lock().unwrap();
    let items = objects.get(plural).cloned().unwrap_or_default();
    let version = (state.events.borrow().len() + 1).to_string();
    let list =
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items });
    answer(StatusCode::OK, &list)
}

/// The events after a version, and those that come.
fn follow(state: &Arc<ApiState>, plural: &str, version: &str) -> ApiResponse {
    let next = version.parse::<usize>().unwrap_or(1) - 1;
    let events = (state.events.subscribe(), next, plural.to_owned());
    let lines = stream::unfold(events, |(mut events, mut next, plural)| async move {
        loop {
            let event = events.borrow_and_update().get(next).cloned();
            match event {
                Some((of, event)) => {
                    next += 1;
                    if of == plural {
                        let line = Frame::data(Bytes::from(format!("{event}\n")));
                        return Some((Ok(line), (events, next, plural)));
                    }
                }
                None => events.changed().await.ok()?,
            }
        }
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

fn status(code: StatusCode, reason: &str) -> ApiResponse {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16() });
    answer(code, &body)
}

fn answer(code: StatusCode, body: &Value) -> ApiResponse {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
