//! Where an OpenAI-compatible API is, and how it is called.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use crate::config::{BackendConfig, Invalid};

/// To connect, with the handshake.
const CONNECTING: Duration = Duration::from_secs(5);

/// Without a byte for so long, a back end is given up: a long prompt takes a while before the first token.
const SILENCE: Duration = Duration::from_secs(300);

/// Bytes of an error that are read.
const ERROR_BYTES: usize = 64 << 10;

/// Characters of an error that are shown.
const SHOWN: usize = 300;

/// One back end's API.
#[derive(Debug, Clone)]
pub(super) struct Api {
    /// Ends in `/v1/`.
    root: Url,
    client: Client,
}

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(String),
    /// It can't now; later, or another one, may.
    #[error("{0}")]
    Busy(String),
    /// It will never.
    #[error("{0}")]
    Refused(String),
}

impl Api {
    pub fn new(config: &BackendConfig) -> Result<Api, Invalid> {
        let invalid = |why: String| Invalid::new("backends", &config.url, why);
        let root = root(&config.url).map_err(invalid)?;
        let mut headers = HeaderMap::new();
        if let Some(path) = &config.key_file {
            let key = security::read_secret(path).map_err(|error| invalid(error.to_string()))?;
            let value = key
                .and_then(|key| HeaderValue::try_from(format!("Bearer {key}")).ok())
                .map(|mut value| {
                    value.set_sensitive(true);
                    value
                });
            let empty = || invalid(format!("{} holds no key", path.display()));
            headers.insert(AUTHORIZATION, value.ok_or_else(empty)?);
        }
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECTING)
            .read_timeout(SILENCE)
            // A key goes where it was meant to go.
            .redirect(reqwest::redirect::Policy::none())
            // These are machines that people own.
            .no_proxy()
            .build()
            .map_err(|error| invalid(with_causes(&error)))?;
        Ok(Api { root, client })
    }

    /// As people gave it, without what only the API needs.
    pub fn shown(&self) -> &str {
        self.root.as_str().trim_end_matches("/v1/")
    }

    pub async fn get(&self, path: &str, within: Duration) -> Result<Response, Trouble> {
        let request = self.client.get(self.url(path)?).timeout(within);
        checked(request.send().await).await
    }

    pub async fn post(&self, path: &str, body: String) -> Result<Response, Trouble> {
        let request = self.client.post(self.url(path)?);
        let request = request.header("content-type", "application/json");
        checked(request.body(body).send().await).await
    }

    /// Whether it runs on this machine, by the name that was given: then its work shows in the machine's load.
    pub fn is_here(&self) -> bool {
        let Some(host) = self.root.host_str() else {
            return false;
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        // Nobody can listen on an address that is not this machine's.
        let is_own = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
        let own = rustix::system::uname();
        bare.parse().is_ok_and(is_own) || bare == "localhost" || own.nodename().to_str() == Ok(bare)
    }

    fn url(&self, path: &str) -> Result<Url, Trouble> {
        let joined = self.root.join(path);
        joined.map_err(|error| Trouble::Refused(error.to_string()))
    }
}

/// The root of the API behind what people give: with a trailing slash or `/v1`, or without, under any path.
fn root(given: &str) -> Result<Url, String> {
    let mut url = Url::parse(given)
        .map_err(|error| format!("{error}; it looks like http://host:8080 or https://host/path"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("it has to begin with http:// or https:// and a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a key does not belong into a URL: use --backend-key-file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it can't have a query or a fragment".to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path);
    url.set_path(&format!("{path}/v1/"));
    Ok(url)
}

async fn checked(sent: reqwest::Result<Response>) -> Result<Response, Trouble> {
    let response = sent.map_err(|error| {
        let what = match error.is_connect() {
            true => "it can't be reached",
            false => "it broke off before it answered",
        };
        let why = with_causes(&error.without_url());
        Trouble::Unreachable(format!("{what}: {why}"))
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = whole(response, ERROR_BYTES).await.unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let text = format!("it answered {status}: {}", said(&body));
    // What is asked is wrong. A model that was unloaded, or a key that ran out, is this back end's trouble.
    let wrong = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    );
    Err(match wrong {
        true => Trouble::Refused(text),
        false => Trouble::Busy(text),
    })
}

/// A body in one piece, of at most so many bytes.
pub(super) async fn whole(mut response: Response, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    let broken = |error| Trouble::Unreachable(broken_off(error));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > limit {
            let text = format!("its answer has more than {limit} bytes");
            return Err(Trouble::Refused(text));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an error says: its message, where it is one of the API's.
pub(super) fn said(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = parsed.as_ref().and_then(|value| value.get("error"));
    let message = error.and_then(|error| error.get("message").unwrap_or(error).as_str());
    let text = message.unwrap_or(body).trim();
    match text.is_empty() {
        true => "nothing more".to_owned(),
        false => text.chars().take(SHOWN).collect(),
    }
}

/// A connection that ended in the middle.
pub(super) fn broken_off(error: reqwest::Error) -> String {
    format!(
        "the answer broke off: {}",
        with_causes(&error.without_url())
    )
}

/// An error and what it comes from: reqwest says only the first.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_end_as_people_write_it() {
        for (given, wanted) in [
            ("http://m:8080", "http://m:8080/v1/"),
            ("http://m:8080/", "http://m:8080/v1/"),
            ("http://m:8080/v1", "http://m:8080/v1/"),
            ("https://m/llm/v1/", "https://m/llm/v1/"),
            ("https://m/llm", "https://m/llm/v1/"),
        ] {
            assert_eq!(root(given).unwrap().as_str(), wanted, "{given}");
        }
        for (given, why) in [
            ("m:8080", "http://"),
            ("ftp://m", "http://"),
            ("http://", "empty host"),
            ("http://me:secret@m", "--backend-key-file"),
            ("http://m/?key=1", "query"),
        ] {
            let error = root(given).unwrap_err();
            assert!(error.contains(why), "{given}: {error}");
        }
    }

    #[test]
    fn an_error_is_shown_by_its_message() {
        assert_eq!(said(r#"{"error":{"message":"too long"}}"#), "too long");
        assert_eq!(said(r#"{"error":"no such model"}"#), "no such model");
        assert_eq!(said("Bad gateway\n"), "Bad gateway");
        assert_eq!(said(""), "nothing more");
        assert_eq!(said(&"x".repeat(1_000)).len(), SHOWN);
    }

    #[test]
    fn what_runs_on_this_machine_is_known_by_its_address() {
        let is_here = |url: &str| {
            let config = BackendConfig {
                url: url.into(),
                name: None,
                key_file: None,
            };
            Api::new(&config).unwrap().is_here()
        };
        for here in [
            "http://127.0.0.1:8080",
            "http://localhost/x",
            "http://[::1]:1",
        ] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in [
            "http://10.0.0.7:8080",
            "https://models.example",
            "http://[2001:db8::1]",
        ] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
