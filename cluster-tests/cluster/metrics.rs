//! A controller's numbers, from its `/metrics`, over TLS.
//!
//! One request on one connection, HTTP/1.1 by hand: enough for a text that one server sends, and no
//! reason for an HTTP client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::Error;

const LIMIT: Duration = Duration::from_secs(5);

/// Samples by name, those with labels under `name{labels}` and, summed, under `name`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub async fn scrape(address: &str, tls: &Arc<ClientConfig>) -> Result<Metrics, Error> {
        let (status, text) = get(address, "/metrics", tls).await?;
        match status {
            200 => Ok(Metrics::parse(&text)),
            other => Err(Error::Broken(format!(
                "https://{address}/metrics answered {other}: {text}"
            ))),
        }
    }

    pub fn parse(text: &str) -> Metrics {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // A label's value may hold spaces; the number never does.
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            if let Some((bare, _labels)) = name.split_once('{') {
                *samples.entry(bare.to_owned()).or_insert(0.0) += value;
            }
            samples.insert(name.to_owned(), value);
        }
        Metrics(samples)
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// How much a counter rose since `before`.
    pub fn since(&self, before: &Metrics, name: &str) -> Option<f64> {
        Some(self.get(name)? - before.get(name).unwrap_or(0.0))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Status and body of one GET.
pub async fn get(
    address: &str,
    path: &str,
    tls: &Arc<ClientConfig>,
) -> Result<(u16, String), Error> {
    let asked = async {
        let socket = TcpStream::connect(address).await?;
        // The name is not looked at: a controller is known by the identity in its certificate.
        let name = ServerName::try_from("controller").map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, socket)
            .await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply).await {
            Ok(_) => {}
            // It closed without TLS's farewell; what came is checked below.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    let reply = match tokio::time::timeout(LIMIT, asked).await {
        Ok(reply) => reply.map_err(Error::io("asking an HTTPS port"))?,
        Err(_elapsed) => {
            return Err(Error::Timeout {
                what: format!("https://{address}{path}"),
                waited: LIMIT,
                last: "no answer".to_owned(),
            });
        }
    };
    split(&reply)
        .ok_or_else(|| Error::Broken(format!("https://{address}{path} is not HTTP: {reply}")))
}

/// Head and body apart; chunks, where the body came in chunks, put together.
fn split(reply: &str) -> Option<(u16, String)> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        join_chunks(body)?
    } else {
        body.to_owned()
    };
    Some((status, body))
}

fn join_chunks(mut rest: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}
