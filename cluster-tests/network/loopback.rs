//! Ports of the loopback interface: three in a row for each controller.

use std::collections::BTreeMap;
use std::net::TcpListener;

use crate::Error;
use crate::network::Service;

/// Below those that the system hands out by itself, so that no outgoing connection takes one meanwhile.
const RANGE: std::ops::Range<u16> = 20_000..30_000;
/// Between the first ports of two controllers.
const STEP: u16 = 10;
/// Places that are tried before it is said that there is none.
const TRIES: u32 = 200;

/// The first port of each controller.
#[derive(Debug, Clone)]
pub struct Loopback(BTreeMap<String, u16>);

impl Loopback {
    /// Ports that nobody listens on now.
    pub fn find(controllers: &[String]) -> Result<Loopback, Error> {
        for _ in 0..TRIES {
            let mut base = rand::random_range(RANGE);
            let mut ports = BTreeMap::new();
            for controller in controllers {
                ports.insert(controller.clone(), base);
                base += STEP;
            }
            let free = |port: &u16| {
                let three = Service::ALL.map(|service| port + service.offset());
                three
                    .iter()
                    .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            };
            if ports.values().all(free) {
                return Ok(Loopback(ports));
            }
        }
        Err(Error::Invalid("found no free ports in a row".to_owned()))
    }

    pub fn controllers(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// An unknown controller has port 0, where nobody listens.
    pub fn address(&self, controller: &str, service: Service) -> String {
        let port = self.0.get(controller);
        let port = port.map_or(0, |port| port + service.offset());
        format!("127.0.0.1:{port}")
    }
}
