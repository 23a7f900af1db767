//! Channels to other controllers' gRPC ports, one each, for requests that are passed on and for
//! asking how they are. A channel checks that it is really that controller which answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use model::ControllerId;
use security::{Alpn, Credentials, Expected, Role};
use tonic::transport::Channel;

/// The pool.
pub struct Others {
    credentials: Credentials,
    /// How to dial a member instead of the address that it advertises.
    instead: BTreeMap<ControllerId, String>,
    channels: Mutex<HashMap<(ControllerId, String), Channel>>,
}

impl Others {
    pub fn new(credentials: Credentials, instead: BTreeMap<ControllerId, String>) -> Others {
        Others {
            credentials,
            instead,
            channels: Mutex::default(),
        }
    }

    /// The channel to a member that advertises this gRPC address. It connects when it is used.
    pub fn channel(&self, id: ControllerId, advertised: &str) -> Result<Channel, security::Error> {
        let address = self.instead.get(&id).map_or(advertised, String::as_str);
        let key = (id, address.to_owned());
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let expected = Expected::exactly(Role::Controller, &id.to_string());
        let channel = self.dial(address, expected)?;
        // An address that a member left is not needed any more.
        channels.retain(|(other, _), _| *other != id);
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    /// A channel to whichever controller of the cluster listens there.
    pub fn anyone_at(&self, address: &str) -> Result<Channel, security::Error> {
        self.dial(address, Expected::any(Role::Controller))
    }

    fn dial(&self, address: &str, expected: Expected) -> Result<Channel, security::Error> {
        let tls = security::client_config(&self.credentials, expected, Alpn::H2)?;
        Ok(wire::transport::channel(
            address,
            tls,
            wire::transport::Timers::default(),
        ))
    }
}
