//! Dialling out: a link to each control that the configuration names, for as long as the runner lives.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Daemon;
use super::backoff::{Backoff, random};
use super::connection::{self, HELLO_MAX, Unmet};
use crate::identity::TlsError;
use crate::transport::{DialError, Dialler};

/// How long a link must have stood for its loss to be a first one.
const STEADY: Duration = Duration::from_secs(5);

/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 16;

/// Where a control listens: `host:port`, by name or by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(String);

/// A text that is no such place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not HOST:PORT, such as control.example.org:7443 or [2001:db8::1]:7443")]
pub struct BadTarget;

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (host, port) = text.rsplit_once(':').ok_or(BadTarget)?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(number) => number.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        (is_port && is_host)
            .then(|| Self(text.to_owned()))
            .ok_or(BadTarget)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// What it resolves to now.
    pub(super) async fn addresses(&self) -> io::Result<Vec<std::net::SocketAddr>> {
        // The resolver has a time of its own after which it gives up.
        let found = tokio::net::lookup_host(&self.0).await?;
        Ok(found.take(ADDRESSES_MAX).collect())
    }
}

/// Why no link stands.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error("cannot resolve it")]
    Resolve(#[source] io::Error),
    #[error("it resolves to no address")]
    Nowhere,
    #[error("cannot set TLS up")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Unmet(#[from] Unmet),
}

impl Unreached {
    /// Whether somebody was there and it will be the same the next time.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Dial(DialError::Handshake(error))
            | Self::Unmet(Unmet::Gone {
                source: Some(error), ..
            }) => !error.is_silence(),
            Self::Tls(_) | Self::Unmet(Unmet::Peer { .. } | Unmet::Refused { .. } | Unmet::Handshake(_)) => {
                true
            }
            Self::Resolve(_) | Self::Nowhere | Self::Dial(_) | Self::Unmet(_) => false,
        }
    }
}

/// Keeps a link to `target` up. Never ends by itself.
pub(super) async fn keep(target: Target, dialler: Arc<Dialler>, daemon: Arc<Daemon>) {
    let mut backoff = Backoff::default();
    let mut changes = daemon.credentials.changes();
    let mut is_known = false;
    loop {
        let is_refused = match once(&target, &dialler, &daemon).await {
            Ok(stood) => {
                is_known = false;
                if stood >= STEADY {
                    backoff.reset();
                }
                false
            }
            Err(error) => {
                let said = crate::cause::chain(&error);
                if !is_known {
                    tracing::warn!(control = %target, error = said, "no link to a control; it is dialled again");
                } else {
                    tracing::debug!(control = %target, error = said, "no link to a control");
                }
                is_known = true;
                error.is_refusal()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(backoff.next(is_refused, random())) => {}
            // Who was refused for what it showed may show something else now.
            Ok(()) = changes.changed() => {
                backoff.reset();
                is_known = false;
            }
        }
    }
}

/// Dials once, and serves the link until it is gone.
async fn once(target: &Target, dialler: &Dialler, daemon: &Arc<Daemon>) -> Result<Duration, Unreached> {
    let addresses = target.addresses().await.map_err(Unreached::Resolve)?;
    let mut failed = Unreached::Nowhere;
    for address in addresses {
        match dialler.dial(address, daemon.credentials.client_config()?).await {
            Ok(connection) => {
                let until = Instant::now() + HELLO_MAX;
                return Ok(connection::serve(connection, None, until, daemon).await?);
            }
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for text in [
            "control.example.org:7443",
            "localhost:1",
            "10.0.0.1:65535",
            "[::1]:7443",
            "a_b-c:80",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            ":7443",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:7443",
            "[::1]",
            "[host]:1",
            "https://host:1",
            "a b:1",
        ] {
            assert_eq!(text.parse::<Target>(), Err(BadTarget), "{text}");
        }
    }
}
