//! gRPC through the gateway, with two foreign implementations (Python's grpcio, Rust's tonic): unary calls, client,
//! server and bidirectional streaming, metadata, trailers, status codes, deadlines (`grpc-timeout`), cancellation.

pub(crate) mod grpcio;
mod method_matches;
mod tonic;
