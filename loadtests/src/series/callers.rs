//! Departments that call each of their commands once.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{Options, SUBSYSTEMS};
use crate::driver::Door;
use crate::pki::{HOST, Pki, department};

/// Departments that call concurrently.
const AT_ONCE: usize = 16;

/// Calls every command of every department; returns an error at the first command without a 200.
pub(super) fn call_all(options: &Options, pki: &Pki, gateway: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut calling = tokio::task::JoinSet::new();
        for index in 0..options.departments {
            if calling.len() == AT_ONCE {
                calling.join_next().await.context("a department calls")???;
            }
            let door = Door { address: gateway, tls: pki.client(&department(index), b"http/1.1")? };
            calling.spawn(call(door, options.commands));
        }
        while let Some(called) = calling.join_next().await {
            called??;
        }
        Ok(())
    })
}

async fn call(door: Door, commands: usize) -> Result<()> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(door.enter().await?)).await?;
    let connection = tokio::spawn(connection);
    for number in 0..commands {
        let path = path(number);
        let request = Request::get(&path).header("Host", HOST).body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await.with_context(|| format!("calling {path}"))?;
        ensure!(answer.status() == 200, "{path} was answered with {}", answer.status());
        answer.into_body().collect().await?;
    }
    drop(sender);
    Ok(connection.await??)
}

/// The path of a command.
pub(super) fn path(number: usize) -> String {
    format!("/s{}/c{number}", number % SUBSYSTEMS)
}
