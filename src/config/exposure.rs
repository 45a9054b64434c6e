//! Who can reach a listener, and whether the configuration says whose mail it accepts: no server
//! becomes a catch-all for the Internet, or an open relay, by accident.
//!
//! The address that is bound says who connects, not who is served. A proxy in front, an XCLIENT
//! peer, and a unix socket that another mail server feeds all bring clients from elsewhere.

use super::promises::concerns;
use super::raw::Settings;
use super::{ConfigError, ConfigErrors, ListenerConfig, Origin};
use crate::export::{ExportOptions, SinkOptions};
use crate::smtp::Protocol;

/// Notes each listener that takes anybody's mail from anybody.
pub(super) fn check(s: &mut Settings, listeners: &[ListenerConfig], exports: &[ExportOptions]) {
    for (index, listener) in listeners.iter().enumerate() {
        // What was written there and is wrong is the cause, and told already.
        if s.has_mistake_below(&format!("listener.{index}.accept.")) {
            continue;
        }
        for (field, why) in openings(listener, exports) {
            s.blame(&format!("listener.{index}.{field}"), message(index, &why));
        }
    }
}

/// As [`check`], of a configuration that is put together from two: what a reload changes, and what
/// of the running server needs a restart.
pub(super) fn check_running(
    listeners: &[ListenerConfig],
    exports: &[ExportOptions],
) -> Result<(), ConfigErrors> {
    let mut errors = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        for (field, why) in openings(listener, exports) {
            errors.push(ConfigError {
                key: format!("listener.{}.{field}", listener.name),
                origin: Origin::Default,
                file: None,
                message: format!(
                    "{}; the addresses and protocols of the running server change only with a \
                     restart",
                    message(index, &why)
                ),
            });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

fn message(index: usize, why: &str) -> String {
    format!(
        "{why}: listener.{index}.accept.domains or listener.{index}.accept.recipients_file is \
         needed (accept.domains = [\"*\"] deliberately accepts mail for any domain)"
    )
}

/// The keys that let clients from elsewhere in, each with the reason; none where `accept` says
/// whose mail is taken.
fn openings(listener: &ListenerConfig, exports: &[ExportOptions]) -> Vec<(&'static str, String)> {
    if listener.protocol == Protocol::Refuse || !listener.accept.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let beyond = |ip: std::net::IpAddr| !ip.to_canonical().is_loopback();
    if let Some(address) = listener.listen.iter().find(|address| beyond(address.ip())) {
        let why = format!(
            "{address} listens beyond loopback, and the server would be a catch-all for the Internet"
        );
        found.push(("listen", why));
    }
    if listener.proxies.is_some() {
        let why = "the proxy brings clients from anywhere, whatever address is bound here";
        found.push(("proxy_protocol.mode", why.to_owned()));
    }
    if !listener.xclient.is_empty() {
        let why = "XCLIENT brings clients from anywhere, whatever address is bound here";
        found.push(("xclient.trusted", why.to_owned()));
    }
    let relay = exports
        .iter()
        .find(|export| matches!(export.sink, SinkOptions::Relay(_)) && concerns(export, listener));
    if let (Some(path), Some(relay)) = (listener.listen_unix.first(), relay) {
        let why = format!(
            "the program that writes to unix:{} brings clients from anywhere, and exporter {:?} relays their \
             mail",
            path.display(),
            relay.name
        );
        found.push(("listen", why));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{from_text, wrong};

    const RELAY: &str = "[[export]]\nname = \"out\"\ntype = \"smtp\"\nserver = \"a:25\"\n";

    /// An `accept` with a mistake in it is not one that is missing.
    #[test]
    fn a_bad_domain_is_the_only_mistake() {
        for accept in ["domains = [\"a b\", \"-x\"]", "domains = 5", "subaddress = \"++\""] {
            let text =
                format!("[[listener]]\nlisten = [\"0.0.0.0:25\"]\naccept = {{ {accept} }}\n");
            let errors = from_text(&text).expect_err("should be refused").to_string();
            for error in errors.lines() {
                assert!(error.starts_with("listener.0.accept."), "{error}");
            }
        }
    }

    /// What is missing in `accept` makes each of these an open relay.
    #[test]
    fn clients_named_by_others_need_accept() {
        let needed = "listener.0.accept.domains or listener.0.accept.recipients_file is needed \
                      (accept.domains = [\"*\"] deliberately accepts mail for any domain)";
        let lmtp = "protocol = \"lmtp\"\n";
        for (listener, export, key, why) in [
            (
                "proxy_protocol = { mode = \"required\", trusted = [\"127.0.0.1\"] }\n",
                "",
                "listener.0.proxy_protocol.mode (m.toml:2)",
                "the proxy brings clients from anywhere, whatever address is bound here",
            ),
            (
                "xclient.trusted = [\"127.0.0.1\"]\n",
                RELAY,
                "listener.0.xclient.trusted (m.toml:2)",
                "XCLIENT brings clients from anywhere, whatever address is bound here",
            ),
            (
                "listen = [\"unix:/run/x\"]\nprotocol = \"lmtp\"\n",
                RELAY,
                "listener.0.listen (m.toml:2)",
                "the program that writes to unix:/run/x brings clients from anywhere, and exporter \"out\" \
                 relays their mail",
            ),
            (
                "listen = [\"10.0.0.5:24\"]\nprotocol = \"lmtp\"\n",
                "",
                "listener.0.listen (m.toml:2)",
                "10.0.0.5:24 listens beyond loopback, and the server would be a catch-all for the \
                 Internet",
            ),
        ] {
            let text = format!("[[listener]]\n{listener}{export}");
            wrong(&text, &[&format!("{key}: {why}: {needed}")]);
            for said in ["accept.domains = [\"*\"]", "accept.recipients_file = \"/r\""] {
                from_text(&format!("[[listener]]\n{listener}{said}\n{export}")).expect(said);
            }
        }
        // Nobody but this machine gets there, or the mail goes nowhere else.
        for text in [
            format!("[[listener]]\n{lmtp}{RELAY}"),
            format!("[[listener]]\n{lmtp}listen = [\"unix:/run/x\"]\n"),
            format!(
                "[[listener]]\n{lmtp}listen = [\"unix:/run/x\"]\n{RELAY}filter.listener = [\"other\"]\n\
                     [[listener]]\nname = \"other\"\nlisten = [\"127.0.0.1:26\"]\n"
            ),
            format!("[[listener]]\nproxy_protocol.trusted = [\"127.0.0.1\"]\n{RELAY}"),
            "[[listener]]\nprotocol = \"refuse\"\nproxy_protocol = { mode = \"required\", trusted = \
             [\"127.0.0.1\"] }\n"
                .to_owned(),
        ] {
            from_text(&text).expect(&text);
        }
    }

    /// What needs a restart stays as it is at a reload: the new file alone is no open relay, what
    /// would run then is.
    #[test]
    fn a_reload_opens_no_relay() {
        let running =
            "[[listener]]\nlisten = [\"0.0.0.0:25\"]\naccept.domains = [\"ours.example\"]\n";
        let running = from_text(running).unwrap();
        for new in ["", "[[listener]]\nprotocol = \"refuse\"\nlisten = [\"0.0.0.0:25\"]\n"] {
            let taken = from_text(new).unwrap().as_taken_by(&running);
            let error = taken.check_running().unwrap_err().to_string();
            assert!(error.contains("0.0.0.0:25 listens beyond loopback"), "{error}");
            assert!(error.contains("only with a restart"), "{error}");
        }
        let new = from_text("[[listener]]\naccept.domains = [\"new.example\"]\n").unwrap();
        new.as_taken_by(&running).check_running().unwrap();
    }
}
