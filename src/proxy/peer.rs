//! Who is at the other end of a connection: the caller its handshake proved, and the department that claims it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use crate::identity::Caller;
use crate::policy::{DepartmentPolicy, Snapshot};

use super::tunnel::Doorstep;

/// Who is at the other end.
pub(super) struct Peer {
    caller: Option<Caller>,
    address: HeaderValue,
    claimed: RefCell<Option<Claimed>>,
    /// What the connection is to become, once its last answer has left.
    pub(super) tunnel: Doorstep,
}

/// Which department claims a caller under a snapshot.
struct Claimed {
    snapshot: Arc<Snapshot>,
    department: Option<Arc<DepartmentPolicy>>,
}

impl Peer {
    pub(super) fn new(caller: Option<Caller>, address: IpAddr) -> Self {
        let address = HeaderValue::try_from(address.to_canonical().to_string());
        let address = address.expect("an IP address is a header value");
        Self { caller, address, claimed: RefCell::new(None), tunnel: Doorstep::default() }
    }

    /// The caller, if it showed a certificate.
    pub(super) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// The value of `X-Forwarded-For`.
    pub(super) fn address(&self) -> &HeaderValue {
        &self.address
    }

    /// The one department that claims the caller under this snapshot; remembered until the next one.
    pub(super) fn department(&self, snapshot: &Arc<Snapshot>) -> Option<Arc<DepartmentPolicy>> {
        if let Some(claimed) = &*self.claimed.borrow()
            && Arc::ptr_eq(&claimed.snapshot, snapshot)
        {
            return claimed.department.clone();
        }
        let claimed = self.caller.as_ref().map(|caller| snapshot.department_of(caller.identities()));
        let department = match claimed {
            Some(Ok(department)) => Some(Arc::clone(department)),
            Some(Err(unclaimed)) => {
                tracing::debug!(?unclaimed, "no single department claims this caller");
                None
            }
            None => None,
        };
        self.claimed.replace(Some(Claimed { snapshot: Arc::clone(snapshot), department: department.clone() }));
        department
    }
}
