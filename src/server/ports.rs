//! The three ports, bound before anything is opened, so that one in use is the first thing that
//! is said.

use std::io;
use std::net::{TcpListener as StdListener, ToSocketAddrs};

use tokio::net::TcpListener;

use crate::config::Config;
use crate::error::Error;

/// Bound, and not accepting yet.
pub struct Ports {
    pub grpc: TcpListener,
    /// Raft accepts on a runtime of its own.
    pub raft: StdListener,
    pub https: TcpListener,
    /// As others may dial them, where nothing else is advertised.
    pub bound: model::Addresses,
}

impl Ports {
    pub fn bind(config: &Config) -> Result<Ports, Error> {
        let asked = config.listen_on()?;
        let (grpc, grpc_address) = bind(&asked.grpc, "gRPC")?;
        let (raft, raft_address) = bind(&asked.raft, "Raft")?;
        let (https, https_address) = bind(&asked.https, "HTTPS")?;
        let tokio = |listener, address: &str, port| {
            TcpListener::from_std(listener).map_err(|source| Error::Listen {
                address: address.to_owned(),
                port,
                source,
            })
        };
        Ok(Ports {
            grpc: tokio(grpc, &grpc_address, "gRPC")?,
            raft,
            https: tokio(https, &https_address, "HTTPS")?,
            bound: model::Addresses {
                grpc: grpc_address,
                raft: raft_address,
                https: https_address,
            },
        })
    }
}

/// The listener, and its address under the name that was given, with the port it really got.
fn bind(address: &str, port: &'static str) -> Result<(StdListener, String), Error> {
    let open = || {
        let listener = listen(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?.port();
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Ok((listener, format!("{host}:{bound}")))
    };
    open().map_err(|source| Error::Listen {
        address: address.to_owned(),
        port,
        source,
    })
}

/// The standard library sets `SO_REUSEADDR`, so a restart does not wait for old connections.
fn listen(address: &str) -> io::Result<StdListener> {
    let places: Vec<_> = address.to_socket_addrs()?.collect();
    StdListener::bind(&places[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        Config {
            id: model::ControllerId(1),
            listen: listen.into(),
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn port_zero_takes_three_free_ports_and_says_which() {
        let ports = Ports::bind(&config("127.0.0.1:0")).unwrap();
        let all = [&ports.bound.grpc, &ports.bound.raft, &ports.bound.https];
        assert!(all.iter().all(|address| address.starts_with("127.0.0.1:")));
        assert!(all.iter().all(|address| !address.ends_with(":0")));
        assert_eq!(
            ports.bound.raft,
            ports.raft.local_addr().unwrap().to_string()
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_next_step() {
        let taken = StdListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = Ports::bind(&config(&address)).err().unwrap().to_string();
        assert!(
            error.contains(&address) && error.contains("--listen"),
            "{error}"
        );
    }
}
