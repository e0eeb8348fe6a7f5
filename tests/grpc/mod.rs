//! gRPC through the gateway.

pub(crate) mod grpcio;
mod tonic;
