//! One `[[listener]]`: its keys, and what they require of each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::raw::Settings;
use super::{
    AcceptConfig, AuthConfig, DnsConfig, ListenerConfig, Methods, Network, RejectConfig, address,
    check::files, units,
};
use crate::smtp::{Mechanism, Protocol, TlsPolicy};
use crate::verdict::{RejectCause, RejectRules};

pub(super) fn listener(s: &mut Settings, index: usize) -> ListenerConfig {
    let key = |field: &str| format!("listener.{index}.{field}");
    let protocol = s.choose(&key("protocol"));
    let accept = accept(s, &key);
    let (listen, listen_unix) = listen(s, &key, protocol);
    let tls_mode = s.choose(&key("tls_mode"));
    let tls_client_ca = s.file(&key("tls.client_ca_file"));
    let mut auth = auth(s, &key, tls_mode, tls_client_ca.is_some());
    let submission = submission(s, &key, protocol, tls_mode, &mut auth);
    let verify = verify(s, &key);
    ListenerConfig {
        name: s.parse(&key("name"), units::label),
        listen,
        listen_unix,
        protocol,
        line_ends: s.choose(&key("line_ends")),
        strict_paths: s.choice(&key("paths")) == "strict",
        strict_helo: s.choice(&key("helo")) == "strict",
        tls_mode,
        tls: files(s, &key("tls")),
        tls_client_ca,
        tls_reject_unknown_name: s.choice(&key("tls.unknown_name")) == "reject",
        auth,
        submission,
        senders_file: s.file(&key("senders_file")),
        refuse_author: s.choice(&key("senders_from")) == "reject",
        proxies: proxies(s, &key),
        xclient: s.list(&key("xclient.trusted"), str::parse),
        accept,
        dns: DnsConfig {
            lists: s.list(&key("dns.lists"), list_entry),
            reject_at: s
                .integer(&key("dns.reject_at"))
                .and_then(|sum| i32::try_from(sum).ok())
                .unwrap_or(1),
            deadline: s.duration(&key("dns.deadline")).unwrap_or_default(),
            reverse: s.boolean(&key("dns.reverse")),
        },
        verify,
        authserv_id: authserv_id(s, &key),
        reject: reject(s, &key, verify),
        greet_delay: s.duration(&key("greet_delay")).unwrap_or_default(),
        greet_check: s.boolean(&key("greet_check")),
        low_priority: s.choice(&key("priority")) == "low",
        dsn: s.boolean(&key("dsn")),
        require_tls: s.boolean(&key("require_tls")),
        mt_priority: s.boolean(&key("mt_priority")),
    }
}

/// Longest path of a unix socket: `sun_path` of unix(7) without the NUL.
const UNIX_PATH_MAX: usize = 107;

/// Where it listens.
fn listen(
    s: &mut Settings,
    key: &impl Fn(&str) -> String,
    protocol: Protocol,
) -> (Vec<SocketAddr>, Vec<PathBuf>) {
    let errors = s.error_count();
    let mut paths = Vec::new();
    let addresses = s.list(&key("listen"), |text| {
        if let Some(path) = text.strip_prefix("unix:") {
            return match (protocol, path.starts_with('/')) {
                (Protocol::Lmtp, true) if path.len() > UNIX_PATH_MAX => Err(format!(
                    "{text}: the path has {} bytes, but a unix socket's path can have at most \
                     {UNIX_PATH_MAX}",
                    path.len()
                )),
                (Protocol::Lmtp, true) => Ok((None, Some(PathBuf::from(path)))),
                (Protocol::Lmtp, false) => Err(format!("{text}: the path must begin with /")),
                _ => Err(format!("{text}: a unix socket needs protocol = \"lmtp\"")),
            };
        }
        let address = address::listen(text)?;
        if address.port() == 25 && protocol == Protocol::Lmtp {
            // RFC 2033 §5.
            return Err(format!("{text}: LMTP must not be spoken on port 25"));
        }
        Ok((Some(address), None))
    });
    let mut found = Vec::new();
    for (address, path) in addresses {
        found.extend(address);
        paths.extend(path);
    }
    if found.is_empty() && paths.is_empty() && s.error_count() == errors {
        let message = "at least one address is needed, for example 127.0.0.1:2525".to_owned();
        s.blame(&key("listen"), message);
    }
    (found, paths)
}

fn accept(s: &mut Settings, key: &impl Fn(&str) -> String) -> AcceptConfig {
    AcceptConfig {
        domains: s.list(&key("accept.domains"), domain_pattern),
        domains_file: s.file(&key("accept.domains_file")),
        recipients_file: s.file(&key("accept.recipients_file")),
        subaddress: s.parse(&key("accept.subaddress"), |text| {
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (None, _) => Ok(None),
                (Some(one), None) if one.is_ascii_punctuation() && !"@\"<>\\".contains(one) => {
                    Ok(Some(one))
                }
                _ => Err(format!("{text:?} is not a delimiter such as \"+\"")),
            }
        }),
    }
}

/// `example.com`, `*.example.com` or `*`, in lower case and without the dot of the root.
fn domain_pattern(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text == "*" {
        return Ok(text.to_owned());
    }
    let fine = !name.is_empty()
        && name.len() <= 255
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        });
    match fine {
        true => Ok(text.to_lowercase()),
        false => Err(format!("{text:?} is not a domain such as example.com or *.example.com")),
    }
}

fn proxies(s: &mut Settings, key: &impl Fn(&str) -> String) -> Option<Vec<Network>> {
    let trusted: Vec<Network> = s.list(&key("proxy_protocol.trusted"), str::parse);
    let on = s.choice(&key("proxy_protocol.mode")) == "required";
    if on && trusted.is_empty() {
        let message = format!("requires {} as well", key("proxy_protocol.trusted"));
        s.blame(&key("proxy_protocol.mode"), message);
    }
    on.then_some(trusted)
}

fn auth(
    s: &mut Settings,
    key: &impl Fn(&str) -> String,
    tls: TlsPolicy,
    client_certificates: bool,
) -> AuthConfig {
    let mechanisms: Vec<Mechanism> = s.list(&key("auth.mechanisms"), |text| {
        let known = Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == text);
        known.ok_or_else(|| {
            let all = Mechanism::ALL.map(Mechanism::name).join(", ");
            format!("{text:?} is not one of {all}")
        })
    });
    let users_file = s.file(&key("auth.users_file"));
    let required = s.boolean(&key("auth.required"));
    let blame = |s: &mut Settings, message: String| s.blame(&key("auth.mechanisms"), message);
    let with_password = mechanisms.iter().any(|mechanism| *mechanism != Mechanism::External);
    if with_password && users_file.is_none() {
        blame(s, format!("requires {} as well", key("auth.users_file")));
    }
    if mechanisms.contains(&Mechanism::External) && !client_certificates {
        blame(s, format!("EXTERNAL needs {}", key("tls.client_ca_file")));
    }
    if !mechanisms.is_empty() && tls == TlsPolicy::Off {
        blame(s, "AUTH is offered only over TLS, and tls_mode is \"off\"".to_owned());
    }
    if users_file.is_some() && mechanisms.is_empty() {
        let message = format!("nobody can log in: requires {} as well", key("auth.mechanisms"));
        s.blame(&key("auth.users_file"), message);
    }
    if required && mechanisms.is_empty() {
        s.blame(&key("auth.required"), format!("requires {} as well", key("auth.mechanisms")));
    }
    AuthConfig { mechanisms, users_file, required }
}

/// Whether its clients are users: they use TLS and log in.
fn submission(
    s: &mut Settings,
    key: &impl Fn(&str) -> String,
    protocol: Protocol,
    tls: TlsPolicy,
    auth: &mut AuthConfig,
) -> bool {
    let on = s.choice(&key("role")) == "submission";
    if on && protocol != Protocol::Smtp {
        s.blame(&key("role"), "submission requires protocol = \"smtp\"".to_owned());
    }
    if on && !matches!(tls, TlsPolicy::Required | TlsPolicy::Implicit) {
        let message = "submission requires tls_mode = \"required\" or \"implicit\"";
        s.blame(&key("role"), message.to_owned());
    }
    if on && auth.mechanisms.is_empty() {
        let message = format!("submission requires {} as well", key("auth.mechanisms"));
        s.blame(&key("role"), message);
    }
    auth.required |= on;
    if s.is_written(&key("senders_file")) && !on {
        s.blame(&key("senders_file"), "requires role = \"submission\"".to_owned());
    }
    if s.choice(&key("senders_from")) == "reject" && !s.is_written(&key("senders_file")) {
        let message = format!("requires {} as well", key("senders_file"));
        s.blame(&key("senders_from"), message);
    }
    on
}

/// What is checked of the sender.
fn verify(s: &mut Settings, key: &impl Fn(&str) -> String) -> Option<Methods> {
    let none = Methods { spf: false, dkim: false, dmarc: false, arc: false, iprev: false };
    let methods = s.list(&key("verify.methods"), |text| match text {
        "spf" => Ok(Methods { spf: true, ..none }),
        "dkim" => Ok(Methods { dkim: true, ..none }),
        "dmarc" => Ok(Methods { dmarc: true, ..none }),
        "arc" => Ok(Methods { arc: true, ..none }),
        "iprev" => Ok(Methods { iprev: true, ..none }),
        _ => Err(format!("{text:?} is not one of spf, dkim, dmarc, arc, iprev")),
    });
    let wanted = methods.iter().fold(none, |sum, one| Methods {
        spf: sum.spf || one.spf,
        dkim: sum.dkim || one.dkim,
        dmarc: sum.dmarc || one.dmarc,
        arc: sum.arc || one.arc,
        iprev: sum.iprev || one.iprev,
    });
    if wanted.dmarc && !wanted.spf && !wanted.dkim {
        s.blame(&key("verify.methods"), "dmarc requires spf or dkim as well".to_owned());
    }
    (!methods.is_empty()).then_some(wanted)
}

/// As whom exporters state results.
fn authserv_id(s: &mut Settings, key: &impl Fn(&str) -> String) -> Option<String> {
    let name = s.parse(&key("verify.authserv_id"), |text| match text {
        "" => Ok(String::new()),
        _ => units::hostname(text),
    });
    let tags = matches!(s.choice(&key("verify.mode")), "tag" | "reject");
    if tags && !s.is_written(&key("verify.methods")) {
        let message = format!("requires {} as well", key("verify.methods"));
        s.blame(&key("verify.mode"), message);
    }
    tags.then_some(name)
}

/// What mail is refused for.
fn reject(
    s: &mut Settings,
    key: &impl Fn(&str) -> String,
    verify: Option<Methods>,
) -> Option<RejectConfig> {
    let on = s.choice(&key("verify.mode")) == "reject";
    let causes: Vec<RejectCause> = s.list(&key("verify.reject"), |text| {
        let known = RejectCause::ALL.into_iter().find(|cause| cause.name() == text);
        known.ok_or_else(|| {
            let all = RejectCause::ALL.map(RejectCause::name).join(", ");
            format!("{text:?} is not one of {all}")
        })
    });
    let config = RejectConfig {
        rules: RejectRules {
            causes,
            except: s.list(&key("verify.except"), |text| match domain_pattern(text)? {
                domain if domain == "*" => Err("*: this would except all mail".to_owned()),
                domain => idna::domain_to_ascii(domain.trim_start_matches("*."))
                    .map(|name| if domain.starts_with("*.") { format!("*.{name}") } else { name })
                    .map_err(|_| format!("{text:?} is not a domain such as example.com")),
            }),
        },
        trusted: s.list(&key("verify.trusted"), str::parse),
        deadline: s.duration(&key("verify.deadline")).unwrap_or_default(),
        tempfail: s.choice(&key("verify.on_timeout")) == "tempfail",
    };
    if !on {
        for field in ["except", "trusted"] {
            let key = key(&format!("verify.{field}"));
            if s.is_written(&key) {
                s.blame(&key, "requires verify.mode = \"reject\"".to_owned());
            }
        }
        return None;
    }
    // Without any method the mode itself is wrong already.
    let needed = verify.into_iter().flat_map(|has| {
        [
            (RejectCause::Dmarc, "dmarc", has.dmarc),
            (RejectCause::Spf, "spf", has.spf),
            (RejectCause::OwnDomain, "spf or dkim", has.spf || has.dkim),
        ]
    });
    for (cause, methods, has) in needed {
        if config.rules.causes.contains(&cause) && !has {
            let message = format!("{} requires {methods} in verify.methods", cause.name());
            s.blame(&key("verify.reject"), message);
        }
    }
    Some(config)
}

/// `zone` or `zone=weight`.
fn list_entry(text: &str) -> Result<(String, i32), String> {
    let (zone, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.trim().parse::<i32>().ok().filter(|weight| *weight != 0);
    match (domain_pattern(zone.trim()), weight) {
        (Ok(zone), Some(weight)) if !zone.starts_with('*') => Ok((zone, weight)),
        _ => Err(format!("{text:?} is not a list such as zen.example=5")),
    }
}
