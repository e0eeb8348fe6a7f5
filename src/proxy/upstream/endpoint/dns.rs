//! DNS: the addresses of a host name, looked up again when their time to live has passed.
//!
//! Guarantees:
//! - A server whose address changes is found without a restart or a reload, at the next connection after the time to
//!   live.
//! - An IP address needs no lookup.
//! - `/etc/resolv.conf` and `/etc/hosts` are read once, at the first host name.

use std::cell::OnceCell;
use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;

/// The maximum number of addresses tried per connection.
const ADDRESSES_MAX: usize = 8;

/// One worker's resolver, with its cache.
#[derive(Default)]
pub(crate) struct DnsResolver(OnceCell<TokioResolver>);

impl DnsResolver {
    /// The addresses of a host, at least one.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let found = self.resolver()?.lookup_ip(host).await.map_err(io::Error::other)?;
        let addresses: Vec<_> =
            found.iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(address, port)).collect();
        match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(addresses),
        }
    }

    fn resolver(&self) -> io::Result<&TokioResolver> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver);
        }
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(io::Error::other)?;
        Ok(self.0.get_or_init(|| built))
    }
}
