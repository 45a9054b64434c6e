//! Addresses and names of other systems, as far as they can be checked without contacting them.
//!
//! What may hold a password (a URL) is not repeated in the message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;

use super::units;

/// An address to listen at, as in `127.0.0.1:25` or `[::1]:25`. Names are not looked up: what they
/// stand for decides who can reach the server. An IPv4 address in IPv6 form is the IPv4 address.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(match address.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
            // With its scope.
            IpAddr::V6(_) => address,
        });
    }
    let port = |text: &str| match text.is_empty() || !text.bytes().all(|o| o.is_ascii_digit()) {
        true => None,
        false => text.parse::<u16>().ok(),
    };
    let form = match text.rsplit_once(':') {
        _ if port(text).is_some() => format!(
            "an address is needed with the port: \"127.0.0.1:{text}\" for this machine alone, \
             \"0.0.0.0:{text}\" and \"[::]:{text}\" for every address of it"
        ),
        _ if text.parse::<Ipv4Addr>().is_ok() => format!("a port is needed: \"{text}:25\""),
        _ if text.parse::<Ipv6Addr>().is_ok() => {
            format!("an IPv6 address needs brackets and a port: \"[{text}]:25\"")
        }
        Some(("" | "*" | "[*]", end)) if port(end).is_some() => format!(
            "every address of this machine is \"0.0.0.0:{end}\" (IPv4) and \"[::]:{end}\" (IPv6)"
        ),
        Some(("localhost", end)) if port(end).is_some() => format!(
            "an address is needed, not a name: \"127.0.0.1:{end}\" (IPv4) or \"[::1]:{end}\" \
             (IPv6)"
        ),
        Some((host, end)) if port(end).is_some() && units::hostname(host).is_ok() => format!(
            "an address of this machine is needed, not a name, such as \"192.0.2.1:{end}\"; \
             \"0.0.0.0:{end}\" and \"[::]:{end}\" stand for all its addresses"
        ),
        _ => "an address is needed, such as \"127.0.0.1:2525\" or \"[::1]:2525\"".to_owned(),
    };
    Err(format!("{text:?} is not an address to listen on: {form}"))
}

/// An address of a DNS server; without a port it is that of DNS.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let alone = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse()
        .or_else(|_| alone())
        .map_err(|_| format!("{text} is not an address such as 127.0.0.1:53"))
}

/// `HOST:PORT`; the host is a name, an IPv4 address or an IPv6 one in brackets.
pub(super) fn host_port(text: &str) -> Result<String, String> {
    let error = || format!("{text:?} is not HOST:PORT such as broker-1.example.com:9092");
    let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
    let port_ok = port.bytes().all(|octet| octet.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_ok = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        // Containers get names with underscores.
        None => units::hostname(&host.replace('_', "-")).is_ok(),
    };
    if port_ok && host_ok { Ok(text.to_owned()) } else { Err(error()) }
}

/// `nats://HOST:PORT`
pub(super) fn nats_server(text: &str) -> Result<String, String> {
    let error = "is not nats://HOST:PORT; user, password_file and tls.enabled are separate keys";
    let address = text.strip_prefix("nats://").ok_or_else(|| format!("a server {error}"))?;
    match host_port(address) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("a server {error}")),
    }
}

/// `http://…` or `https://…`, without a user and a fragment.
pub(super) fn url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("not a URL such as https://host.example.com/path".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not contain a user or password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("a fragment (#) is never sent".to_owned());
    }
    Ok(text.to_owned())
}

/// A URL to which paths are appended: no `/` at its end, no query.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let text = url(text)?;
    if text.contains('?') {
        return Err("a path is appended to this URL, so it cannot have a query (?)".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// `HOST:PORT`, or the path of a unix socket.
pub(super) fn relay_server(text: &str) -> Result<String, String> {
    if text.contains('/') && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    host_port(text).map_err(|error| format!("{error}, nor the path of a unix socket"))
}

/// A NATS subject with placeholders.
pub(super) fn subject(text: &str) -> Result<String, String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let known = ["listener}", "rcpt_domain}", "shard}"];
        let Some(name) = known.iter().find(|name| after.starts_with(**name)) else {
            let name = after.split('}').next().unwrap_or("");
            return Err(format!(
                "{{{name}}} is not a placeholder; use {{listener}}, {{rcpt_domain}} or {{shard}}"
            ));
        };
        rest = after.get(name.len()..).unwrap_or("");
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    if text.contains(bad) || text.split('.').any(str::is_empty) || rest.contains('}') {
        return Err(format!(
            "{text:?} is not a subject: names separated by dots, without spaces, * or >"
        ));
    }
    Ok(text.to_owned())
}

/// A NATS stream: no spaces, dots, wildcards or separators of paths.
pub(super) fn stream(text: &str) -> Result<String, String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if text.is_empty() || text.contains(bad) {
        return Err(format!("{text:?} is not a stream's name: no spaces and none of . * > / \\"));
    }
    Ok(text.to_owned())
}

/// A Kafka topic: 1 to 249 of `[A-Za-z0-9._-]`.
pub(super) fn topic(text: &str) -> Result<String, String> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    if (1..=249).contains(&text.len()) && text.bytes().all(plain) && !matches!(text, "." | "..") {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a topic: 1 to 249 letters, digits, '.', '_' or '-'"))
}

/// A bucket: 3 to 63 characters; stores other than Amazon's take capitals and underscores.
pub(super) fn bucket(text: &str) -> Result<String, String> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    if (3..=63).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a bucket: 3 to 63 letters, digits, '.', '_' or '-'"))
}

/// In front of objects' names. No empty, `.` or `..` part: stores and folders differ about these.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let parts = text.strip_suffix('/').unwrap_or(text).split('/');
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if !text.is_empty() && (parts.into_iter().any(bad) || text.contains(char::is_control)) {
        return Err(format!("{text:?} is not a prefix such as \"mail/\""));
    }
    Ok(text.to_owned())
}

/// A domain to compare with, in lower case; other scripts too (RFC 6531).
pub(super) fn domain(text: &str) -> Result<String, String> {
    let bad = |c: char| c == '@' || c == '*' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.contains(bad) {
        return Err(format!("{text:?} is not a domain such as example.com"));
    }
    Ok(text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Result<String, String>;

    #[track_caller]
    fn sorts(check: Check, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(check(text).as_deref(), Ok(*text));
        }
        for text in bad {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_to_listen_at() {
        for (text, address) in [
            ("127.0.0.1:25", "127.0.0.1:25"),
            (" [::]:25 ", "[::]:25"),
            ("[::ffff:192.0.2.1]:25", "192.0.2.1:25"),
            ("[fe80::1%2]:25", "[fe80::1%2]:25"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), address);
        }
        for (text, form) in [
            ("25", "\"127.0.0.1:25\" for this machine alone, \"0.0.0.0:25\" and \"[::]:25\""),
            (":25", "\"0.0.0.0:25\" (IPv4) and \"[::]:25\" (IPv6)"),
            ("*:25", "\"0.0.0.0:25\" (IPv4) and \"[::]:25\" (IPv6)"),
            ("localhost:25", "\"127.0.0.1:25\" (IPv4) or \"[::1]:25\" (IPv6)"),
            ("mx.example.com:25", "not a name, such as \"192.0.2.1:25\""),
            ("127.0.0.1", "a port is needed: \"127.0.0.1:25\""),
            ("::1", "brackets and a port: \"[::1]:25\""),
            ("127.0.0.1:65536", "such as \"127.0.0.1:2525\""),
            ("127.0.0.1:smtp", "such as \"127.0.0.1:2525\""),
            ("smtp://127.0.0.1", "such as \"127.0.0.1:2525\""),
            ("", "such as \"127.0.0.1:2525\""),
        ] {
            let error = listen(text).unwrap_err();
            assert!(error.contains(form) && error.contains(&format!("{text:?}")), "{error}");
        }
        let servers = ["192.0.2.1", "192.0.2.1:5353", "2001:db8::1"].map(dns_server);
        let written = servers.map(|server| server.unwrap().to_string());
        assert_eq!(written, ["192.0.2.1:53", "192.0.2.1:5353", "[2001:db8::1]:53"]);
    }

    #[test]
    fn hosts_with_ports() {
        sorts(
            host_port,
            &["a:1", "kafka_1:9092", "192.0.2.1:65535", "[::1]:9092"],
            &["a", "a:", "a:0", "a:65536", "a:+1", ":9092", "::1:9092", "a b:1", "[x]:1", "u@h:1"],
        );
        sorts(relay_server, &["/run/lmtp", "./lmtp", "h:24"], &["h", "", "h:"]);
        sorts(
            nats_server,
            &["nats://a:4222", "nats://[::1]:4222"],
            &["a:4222", "nats://a", "tls://a:4222", "nats://u:p@a:4222", "nats://a:4222/x"],
        );
    }

    #[test]
    fn urls() {
        sorts(
            url,
            &["http://a", "https://a.example:8443/x?y=z", "http://[::1]:80/"],
            &["", "a", "ftp://a", "http://", "http://a b", "https://u:p@a/", "https://a/#f"],
        );
        assert_eq!(base_url("https://a/b//").as_deref(), Ok("https://a/b"));
        assert!(base_url("https://a/?x").is_err());
        for url_with_secret in ["https://user:hunter2@a/", "nats://user:hunter2@a:1"] {
            for check in [url as Check, nats_server] {
                let error = check(url_with_secret).unwrap_err();
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
    }

    #[test]
    fn names() {
        sorts(
            subject,
            &["mail", "mail.{listener}.{rcpt_domain}", "a-{shard}.b", "{shard}"],
            &["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "{Shard}", "a.{", "a}", "{}", "{shard"],
        );
        assert!(subject("m.{domain}").unwrap_err().contains("{domain} is not a placeholder"));
        sorts(stream, &["MAIL", "m-1"], &["", "a.b", "a b", "a/b", "*"]);
        sorts(topic, &["a", "mail.inbound_1-x"], &["", ".", "..", "a b", "a/b", &"a".repeat(250)]);
        sorts(bucket, &["abc", "My_bucket.1"], &["ab", "a/b", ".abc", "a b c"]);
        sorts(prefix, &["", "a", "a/b/", "mail-"], &["/", "/a", "a//b", "../a", "a/.", "a\n"]);
        sorts(domain, &["example.com", "münchen.example"], &["", "@a", "*.a", "a b"]);
        assert_eq!(domain("Example.COM").as_deref(), Ok("example.com"));
    }
}
