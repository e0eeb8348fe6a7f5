//! Routes of any kind.
//!
//! Guarantees: routes are compared by address first, so that an unchanged one costs nothing.
//!
//! Leaves to others: what they mean (`translate`).

use std::sync::Arc;

use super::fact::Fact;
use crate::kube::objects::{GrpcRoute, HttpRoute, Metadata, ObjectKind, TlsRoute};

/// A route of any kind, shared with the index.
#[derive(Clone, Debug)]
pub enum RouteFact {
    /// An HTTPRoute.
    Http(Arc<Fact<HttpRoute>>),
    /// A GRPCRoute.
    Grpc(Arc<Fact<GrpcRoute>>),
    /// A TLSRoute.
    Tls(Arc<Fact<TlsRoute>>),
}

impl RouteFact {
    /// The kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Http(_) => ObjectKind::HttpRoute,
            Self::Grpc(_) => ObjectKind::GrpcRoute,
            Self::Tls(_) => ObjectKind::TlsRoute,
        }
    }

    /// The metadata.
    pub fn meta(&self) -> &Metadata {
        match self {
            Self::Http(fact) => &fact.meta,
            Self::Grpc(fact) => &fact.meta,
            Self::Tls(fact) => &fact.meta,
        }
    }

    /// Whether nothing has changed, what the server shows of the status included.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => Arc::ptr_eq(one, other),
            (Self::Grpc(one), Self::Grpc(other)) => Arc::ptr_eq(one, other),
            (Self::Tls(one), Self::Tls(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether a translation would see no difference.
    pub fn means_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            _ if self.is_same(other) => true,
            (Self::Http(one), Self::Http(other)) => one.means_the_same(other),
            (Self::Grpc(one), Self::Grpc(other)) => one.means_the_same(other),
            (Self::Tls(one), Self::Tls(other)) => one.means_the_same(other),
            _ => false,
        }
    }
}
