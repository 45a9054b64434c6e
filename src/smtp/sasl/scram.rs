//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), server side.
//!
//! The client proves that it knows the password without sending it, and the server proves that it
//! knew it. What is stored on our side lets nobody log in.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AuthQuestion, Next, USER_BYTES_MAX};

/// The only channel binding we have (RFC 9266).
const BINDING: &str = "tls-exporter";

/// Longest nonce of a client's, in octets: 16 to 24 are usual.
const NONCE_BYTES_MAX: usize = 256;

/// What is stored of a user's password (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Rounds of PBKDF2; at least 4,096 (RFC 7677 §4).
    pub iterations: u32,
    /// Random, of this user alone.
    pub salt: Vec<u8>,
    /// SHA-256 of the key that the client proves to have.
    pub stored_key: [u8; 32],
    /// The key by which we prove to have this credential.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramCredential({} iterations)", self.iterations)
    }
}

impl ScramCredential {
    /// Of a password, normalised already where it is not ASCII. Takes milliseconds: not on a shard.
    #[must_use]
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }
}

/// The server's part of a nonce, in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// Of random octets.
    #[must_use]
    pub fn new(random: [u8; 18]) -> Self {
        Self(STANDARD.encode(random))
    }
}

/// An exchange.
pub(super) struct Scram {
    user: String,
    /// The `gs2-header` as the client wrote it: it is shown again in `c=`.
    gs2_header: String,
    client_first_bare: String,
    client_nonce: String,
    plus: bool,
    step: Step,
}

enum Step {
    /// The credential was asked for.
    Credential,
    /// The server-first-message went out.
    Challenged {
        server_first: String,
        nonce: String,
        binding: Vec<u8>,
        keys: Box<[[u8; 32]; 2]>,
    },
    /// The client has proved itself, and is to say nothing more.
    Proven,
    Over,
}

impl Scram {
    /// Takes the client-first-message. `offers_plus`: EHLO listed -PLUS.
    pub(super) fn begin(
        message: &[u8],
        plus: bool,
        offers_plus: bool,
    ) -> Result<(Self, AuthQuestion), Next> {
        let parsed = ClientFirst::parse(message).ok_or(Next::Malformed)?;
        match (parsed.flag, plus) {
            ("n", false) => {}
            // RFC 5802 §6: `y` says that we did not offer binding. If we did, somebody on the way
            // took it off the list.
            ("y", false) if !offers_plus => {}
            (flag, true) if flag.strip_prefix("p=") == Some(BINDING) => {}
            // Binding without -PLUS, -PLUS without it, or by a kind that we do not have.
            _ => return Err(Next::Refused),
        }
        let user = user(parsed.user).ok_or(Next::Malformed)?;
        // RFC 5802 §5.1: nobody may act for another.
        if let Some(actor) = parsed.actor
            && self::user(actor).ok_or(Next::Malformed)? != user
        {
            return Err(Next::Refused);
        }
        let scram = Self {
            user: user.clone(),
            gs2_header: parsed.gs2_header.to_owned(),
            client_first_bare: parsed.bare.to_owned(),
            client_nonce: parsed.nonce.to_owned(),
            plus,
            step: Step::Credential,
        };
        Ok((scram, AuthQuestion::Credential { user, binding: plus }))
    }

    /// Takes the credential; gives the server-first-message.
    pub(super) fn challenge(
        &mut self,
        credential: ScramCredential,
        nonce: &Nonce,
        binding: &[u8],
    ) -> Next {
        if !matches!(self.step, Step::Credential) {
            return Next::Unavailable;
        }
        if self.plus && binding.is_empty() {
            return Next::Refused;
        }
        let nonce = format!("{}{}", self.client_nonce, nonce.0);
        let salt = STANDARD.encode(&credential.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credential.iterations);
        let challenge = server_first.clone().into_bytes();
        self.step = Step::Challenged {
            server_first,
            nonce,
            binding: if self.plus { binding.to_vec() } else { Vec::new() },
            keys: Box::new([credential.stored_key, credential.server_key]),
        };
        Next::Challenge(challenge)
    }

    /// Takes the client-final-message, or the empty response that follows ours.
    pub(super) fn respond(&mut self, message: &[u8]) -> Next {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Challenged { server_first, nonce, binding, keys } => {
                let [stored_key, server_key] = &*keys;
                let Some(last) = ClientFinal::parse(message) else { return Next::Malformed };
                let shown = [self.gs2_header.as_bytes(), &binding].concat();
                if last.binding != shown || last.nonce != nonce {
                    return Next::Refused;
                }
                let bare = &self.client_first_bare;
                let text = format!("{bare},{server_first},{}", last.without_proof);
                let signature = hmac(stored_key, text.as_bytes());
                let mut client_key = last.proof;
                for (octet, with) in client_key.iter_mut().zip(signature) {
                    *octet ^= with;
                }
                let found: [u8; 32] = Sha256::digest(client_key).into();
                if !bool::from(found.ct_eq(stored_key)) {
                    return Next::Refused;
                }
                self.step = Step::Proven;
                let signature = STANDARD.encode(hmac(server_key, text.as_bytes()));
                Next::Challenge(format!("v={signature}").into_bytes())
            }
            // RFC 4954 §4: what comes with success is a challenge, answered by an empty response.
            Step::Proven if message.is_empty() => Next::Done(std::mem::take(&mut self.user)),
            Step::Proven | Step::Credential | Step::Over => Next::Malformed,
        }
    }
}

/// RFC 5802 §7, `client-first-message`.
struct ClientFirst<'a> {
    gs2_header: &'a str,
    /// `n`, `y` or `p=...`.
    flag: &'a str,
    actor: Option<&'a str>,
    bare: &'a str,
    user: &'a str,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(message).ok().filter(|text| !text.contains('\0'))?;
        let (flag, rest) = text.split_once(',')?;
        let (actor, bare) = rest.split_once(',')?;
        let actor = match actor {
            "" => None,
            actor => Some(actor.strip_prefix("a=")?),
        };
        if !matches!(flag, "n" | "y") && !flag.starts_with("p=") {
            return None;
        }
        // A mandatory extension (`m=`) stands before the name: none is known (RFC 5802 §5.1).
        let (user, rest) = bare.strip_prefix("n=")?.split_once(",r=")?;
        let nonce = rest.split(',').next()?;
        let fine = !user.contains(',') && is_nonce(nonce) && nonce.len() <= NONCE_BYTES_MAX;
        let gs2_header = text.get(..text.len() - bare.len())?;
        fine.then_some(Self { gs2_header, flag, actor, bare, user, nonce })
    }
}

/// RFC 5802 §7, `client-final-message`.
struct ClientFinal<'a> {
    without_proof: &'a str,
    binding: Vec<u8>,
    nonce: &'a str,
    proof: [u8; 32],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(message).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let (binding, rest) = without_proof.strip_prefix("c=")?.split_once(",r=")?;
        let nonce = rest.split(',').next()?;
        Some(Self {
            without_proof,
            binding: STANDARD.decode(binding).ok()?,
            nonce,
            proof: STANDARD.decode(proof).ok()?.try_into().ok()?,
        })
    }
}

/// RFC 5802 §7: printable ASCII but the comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| matches!(octet, 0x21..=0x7e) && octet != b',')
}

/// RFC 5802 §5.1: a comma is `=2C` and an equals sign `=3D`, and nothing else begins with one.
fn user(written: &str) -> Option<String> {
    let mut user = String::with_capacity(written.len());
    let mut parts = written.split('=');
    user.push_str(parts.next()?);
    for part in parts {
        let (sign, rest) = part.split_at_checked(2)?;
        user.push(match sign {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        user.push_str(rest);
    }
    (!user.is_empty() && user.len() <= USER_BYTES_MAX).then_some(user)
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// `Hi()` of RFC 5802 §2.2: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let keyed = Hmac::<Sha256>::new_from_slice(password).expect("HMAC takes keys of any length");
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&1_u32.to_be_bytes());
    let mut round: [u8; 32] = mac.finalize().into_bytes().into();
    let mut sum = round;
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&round);
        round = mac.finalize().into_bytes().into();
        for (octet, with) in sum.iter_mut().zip(round) {
            *octet ^= with;
        }
    }
    sum
}

/// The client's side, for tests.
#[cfg(test)]
pub(crate) fn prove(
    password: &[u8],
    client_first_bare: &str,
    server_first: &str,
    without_proof: &str,
) -> (String, String) {
    let field = |name: &str| {
        server_first.split(',').find_map(|item| item.strip_prefix(name)).expect("it is there")
    };
    let salt = STANDARD.decode(field("s=")).expect("base64");
    let salted = salted_password(password, &salt, field("i=").parse().expect("a number"));
    let client_key = hmac(&salted, b"Client Key");
    let stored_key = Sha256::digest(client_key);
    let text = format!("{client_first_bare},{server_first},{without_proof}");
    let mut proof = hmac(&stored_key, text.as_bytes());
    for (octet, with) in proof.iter_mut().zip(client_key) {
        *octet ^= with;
    }
    let verifier = hmac(&hmac(&salted, b"Server Key"), text.as_bytes());
    (format!("{without_proof},p={}", STANDARD.encode(proof)), STANDARD.encode(verifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    fn credential() -> ScramCredential {
        ScramCredential::derive(b"pencil", &STANDARD.decode(SALT).unwrap(), 4096)
    }

    /// As far as the challenge, with the server's nonce of the RFC.
    fn challenged(first: &[u8], plus: bool, binding: &[u8]) -> (Scram, Next) {
        let (mut scram, _) =
            Scram::begin(first, plus, plus).unwrap_or_else(|next| panic!("{next:?}"));
        let nonce = Nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into());
        let next = scram.challenge(credential(), &nonce, binding);
        (scram, next)
    }

    /// The example, word by word.
    #[test]
    fn rfc7677_3() {
        let (mut scram, next) = challenged(FIRST, false, b"");
        assert_eq!(
            next,
            Next::Challenge(
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                  s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                    .to_vec()
            )
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let verifier = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(scram.respond(last), Next::Challenge(verifier.to_vec()));
        assert_eq!(scram.respond(b""), Next::Done("user".into()));
        assert_eq!(scram.respond(b""), Next::Malformed, "it is over");
    }

    fn finish(scram: &mut Scram, next: &Next, bare: &str, password: &[u8], shown: &[u8]) -> Next {
        let Next::Challenge(challenge) = next else { panic!("{next:?}") };
        let server_first = str::from_utf8(challenge).unwrap();
        let nonce = server_first.split(',').next().unwrap();
        let without_proof = format!("c={},{nonce}", STANDARD.encode(shown));
        let (last, verifier) = prove(password, bare, server_first, &without_proof);
        match scram.respond(last.as_bytes()) {
            Next::Challenge(said) => {
                assert_eq!(said, format!("v={verifier}").into_bytes());
                scram.respond(b"")
            }
            next => next,
        }
    }

    #[test]
    fn a_wrong_password_a_wrong_nonce_a_wrong_binding() {
        let bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let done = Next::Done("user".into());
        let (mut scram, next) = challenged(FIRST, false, b"");
        assert_eq!(finish(&mut scram, &next, bare, b"pencil", b"n,,"), done);
        let (mut scram, next) = challenged(FIRST, false, b"");
        assert_eq!(finish(&mut scram, &next, bare, b"Pencil", b"n,,"), Next::Refused);
        let (mut scram, next) = challenged(FIRST, false, b"");
        assert_eq!(finish(&mut scram, &next, bare, b"pencil", b"y,,"), Next::Refused);
        let (mut scram, _) = challenged(FIRST, false, b"");
        let other = b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(scram.respond(other), Next::Refused);
        // Bound to another channel, or to none (RFC 5802 §6).
        let first = b"p=tls-exporter,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        for (shown, wanted) in [
            (&b"p=tls-exporter,,DATA"[..], done),
            (b"p=tls-exporter,,data", Next::Refused),
            (b"p=tls-exporter,,", Next::Refused),
            (b"n,,", Next::Refused),
        ] {
            let (mut scram, next) = challenged(first, true, b"DATA");
            assert_eq!(finish(&mut scram, &next, bare, b"pencil", shown), wanted, "{shown:?}");
        }
        assert_eq!(challenged(first, true, b"").1, Next::Refused, "there is nothing to bind to");
    }

    #[test]
    fn rfc5802_5_1_what_a_client_may_begin_with() {
        let begin =
            |first: &str, plus| Scram::begin(first.as_bytes(), plus, plus).map(|(scram, _)| scram);
        for (first, user) in
            [("n,,n=a=2Cb=3Dc,r=x", "a,b=c"), ("y,,n=u,r=x,ext=1", "u"), ("n,a=u,n=u,r=x", "u")]
        {
            assert!(begin(first, false).is_ok_and(|scram| scram.user == user), "{first}");
        }
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=u",
            "n,,r=x",
            "n,,n=,r=x",
            "n,,n=u,r=",
            "n,,n=u,x=,r=y",
            "n,,m=ext,n=u,r=x",
            "n,b=u,n=u,r=x",
            "x,,n=u,r=x",
            "n,,n=a=2cb,r=x",
            "n,,n=a=,r=x",
            "n,,n=u,r=\u{fc}",
            "n,,n=u\0,r=x",
            "n,a==,n=u,r=x",
        ] {
            assert_eq!(begin(bad, false).err(), Some(Next::Malformed), "{bad:?}");
        }
        for (first, plus) in [
            ("n,a=root,n=u,r=x", false),
            ("p=tls-exporter,,n=u,r=x", false),
            ("n,,n=u,r=x", true),
            ("y,,n=u,r=x", true),
            ("p=tls-unique,,n=u,r=x", true),
        ] {
            assert_eq!(begin(first, plus).err(), Some(Next::Refused), "{first:?}");
        }
        // A downgrade.
        assert!(Scram::begin(b"y,,n=u,r=x", false, false).is_ok());
        assert_eq!(Scram::begin(b"y,,n=u,r=x", false, true).err(), Some(Next::Refused));
        let long = |octets| format!("n,,n=u,r={}", "x".repeat(octets));
        assert!(begin(&long(256), false).is_ok() && begin(&long(257), false).is_err());
    }
}
