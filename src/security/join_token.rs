//! A join token, `qt1.<id>.<secret>.<pin>`, and the proof that a machine knows its secret.
//!
//! The cluster keeps a SHA-256 of the secret. The proof is that of SCRAM (RFC 5802) with the secret as the
//! client's key: `secret XOR HMAC-SHA-256(SHA-256(secret), message)`. Who has the hash takes the secret out of
//! it again and looks whether it has that hash. So neither the hash nor the proof lets anybody join
//! who has only one of them, and a proof is worth nothing for another message.
//!
//! The message is the certificate request and a value that both ends derive from their TLS session
//! ([`Binding`], RFC 8446 section 7.5): sent over another session, or with another key, it proves nothing.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::pin::Pin;
use crate::tls;

const FORM: &str = "qt1";
const CONTEXT: &[u8] = b"quorate join 1";

/// What an administrator hands to a machine. No `Debug`, and [`fmt::Display`] is the secret itself.
#[derive(Clone)]
pub struct JoinToken {
    /// Names it in lists and logs.
    pub id: String,
    pub secret: Secret,
    pub pin: Pin,
}

impl JoinToken {
    /// A new one, for the cluster with this CA.
    pub fn generate(pin: Pin) -> Result<Self, Error> {
        let mut id = [0; 4];
        let mut secret = [0; 32];
        let random = tls::provider().secure_random;
        let filled = random.fill(&mut id).and_then(|()| random.fill(&mut secret));
        filled.map_err(|_| Error::Internal {
            what: "make a secret",
            reason: "the system gave no random bytes".to_owned(),
        })?;
        Ok(Self {
            id: hex::encode(id),
            secret: Secret(secret),
            pin,
        })
    }

    /// Whether a text is meant to be one.
    pub fn looks_like(text: &str) -> bool {
        text.starts_with("qt1.")
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = URL_SAFE_NO_PAD.encode(self.secret.0);
        write!(f, "{FORM}.{}.{secret}.{}", self.id, self.pin)
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    /// The error does not repeat the text: it may be a secret with a letter missing.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.trim().split('.');
        let all = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        );
        let (Some(FORM), Some(id), Some(secret), Some(pin), None) = all else {
            return Err(Error::NotAToken);
        };
        let secret = URL_SAFE_NO_PAD.decode(secret).ok();
        let secret = secret.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        if id.is_empty() {
            return Err(Error::NotAToken);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: Secret(secret.ok_or(Error::NotAToken)?),
            pin: pin.parse()?,
        })
    }
}

/// What the two ends of one TLS session have in common and nobody else has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

/// The secret part of a token. No `Debug`.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// What the cluster keeps of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }

    /// That whoever sent this request over this session knows the secret.
    pub fn prove(&self, binding: Binding, request: &[u8]) -> [u8; 32] {
        xor(self.0, self.hash().mask(binding, request))
    }
}

/// SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    pub fn is_proven_by(&self, proof: &[u8], binding: Binding, request: &[u8]) -> bool {
        let Ok(proof) = <[u8; 32]>::try_from(proof) else {
            return false;
        };
        let secret = Secret(xor(proof, self.mask(binding, request)));
        verify_slices_are_equal(&secret.hash().0, &self.0).is_ok()
    }

    fn mask(&self, binding: Binding, request: &[u8]) -> [u8; 32] {
        let mut message = CONTEXT.to_vec();
        message.extend(binding.0);
        message.extend(Sha256::digest(request));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut mask = [0; 32];
        mask.copy_from_slice(hmac::sign(&key, &message).as_ref());
        mask
    }
}

fn xor(one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    let mut result = one;
    for (byte, other) in result.iter_mut().zip(other) {
        *byte ^= other;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ca;
    use crate::credentials::Trust;

    fn token() -> JoinToken {
        let ca = Ca::create("q1").unwrap();
        let trust = Trust::from_pem(ca.pem().as_bytes(), "test").unwrap();
        JoinToken::generate(trust.pin().unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_no_two_are_alike() {
        let token = token();
        let again: JoinToken = token.to_string().parse().unwrap();
        assert_eq!(again.to_string(), token.to_string());
        assert!(again.secret.hash() == token.secret.hash());
        let other = JoinToken::generate(token.pin).unwrap();
        assert!(other.id != token.id && other.secret.hash() != token.secret.hash());
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        let good = token().to_string();
        let (front, _) = good.rsplit_once('.').unwrap();
        let wrong = [
            "",
            "qt1",
            "qt1...",
            "qt2.a.b.c",
            front,
            &good[..good.len() - 1],
            &good[1..],
        ];
        let longer = format!("{good}.x");
        for text in wrong.into_iter().chain([longer.as_str()]) {
            let Err(error) = text.parse::<JoinToken>() else {
                panic!("{text} was taken")
            };
            assert!(
                text.len() < 9 || !error.to_string().contains(&text[..9]),
                "{error}"
            );
        }
    }

    #[test]
    fn a_proof_counts_for_one_session_one_request_and_one_secret() {
        let (token, other) = (token(), token());
        let (session, another) = (Binding([1; 32]), Binding([2; 32]));
        let proof = token.secret.prove(session, b"request");
        let hash = token.secret.hash();
        assert!(hash.is_proven_by(&proof, session, b"request"));
        assert!(!hash.is_proven_by(&proof, another, b"request"));
        assert!(!hash.is_proven_by(&proof, session, b"another request"));
        assert!(
            !other
                .secret
                .hash()
                .is_proven_by(&proof, session, b"request")
        );
        assert!(!hash.is_proven_by(&proof[..31], session, b"request"));
        assert!(!hash.is_proven_by(&[], session, b"request"));
        assert!(!hash.is_proven_by(&[0; 32], session, b"request"));
    }

    #[test]
    fn who_has_the_hash_alone_can_prove_nothing() {
        let hash = token().secret.hash();
        let session = Binding([1; 32]);
        let pretended = Secret(hash.0).prove(session, b"request");
        assert!(!hash.is_proven_by(&pretended, session, b"request"));
        let masked = hash.mask(session, b"request");
        assert!(!hash.is_proven_by(&masked, session, b"request"));
    }
}
