//! Keys of `[[listener]]`.

use super::{
    key::Key,
    value::{Choice, Kind},
};
use crate::smtp;

/// In the order of the documentation, with the defaults of the first listener.
pub(super) const LISTENER: &[Key] = &[
    Key::new("name", Kind::Text, "smtp", "Unique name: metric label.").restart(),
    Key::new(
        "listen",
        Kind::List,
        super::DEFAULT_LISTEN,
        "Addresses; port 0 lets the system choose; unix:/PATH is a socket for LMTP.",
    )
    .restart(),
    Key::choice::<smtp::Protocol>(
        "protocol",
        "smtp; lmtp: a reply for each recipient (RFC 2033); refuse: 521 to all (RFC 7504).",
    )
    .restart(),
    Key::choice::<smtp::LineEnds>("line_ends", "Bare CR or LF and NUL in mail data."),
    Key::new(
        "paths",
        Kind::Choice(&["lenient", "strict"]),
        "lenient",
        "lenient: dots anywhere in a local part, local parts of up to 255 bytes, _ and a final \
         dot in domains are accepted and counted; strict: refused (RFC 5321).",
    ),
    Key::new(
        "helo",
        Kind::Choice(&["lenient", "strict"]),
        "lenient",
        "lenient: any name in EHLO and HELO is accepted and recorded; strict: only a domain or an \
         address literal.",
    ),
    Key::new(
        "tls_mode",
        Kind::Choice(smtp::TlsPolicy::WORDS),
        // Without a certificate it is off all the same.
        smtp::TlsPolicy::Offered.name(),
        "starttls: offered if there is a certificate; required: no mail without it; implicit: TLS \
         from the first byte; off.",
    )
    .restart(),
    Key::new(
        "tls.cert_file",
        Kind::File,
        "",
        "Default certificate of this listener, unless the client asks for another name; \"\": \
         only that of server.tls.",
    ),
    Key::new("tls.key_file", Kind::File, "", "Its private key, PEM."),
    Key::new(
        "tls.client_ca_file",
        Kind::File,
        "",
        "Require a client certificate issued by these authorities, PEM; \"\": not requested.",
    )
    .restart(),
    Key::new(
        "tls.unknown_name",
        Kind::Choice(&["default", "reject"]),
        "default",
        "Certificate for a client that asks for an unknown name: the default one, or none.",
    )
    .restart(),
    Key::new(
        "auth.mechanisms",
        Kind::List,
        "",
        "PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, EXTERNAL; only over TLS.",
    ),
    Key::new("auth.users_file", Kind::File, "", "Users file, written by `mailrace user`."),
    Key::new("auth.required", Kind::Boolean, "false", "No mail without AUTH (port 587)."),
    Key::new(
        "role",
        Kind::Choice(&["mx", "submission"]),
        "mx",
        "submission: users hand in their mail (RFC 6409): TLS and AUTH are demanded, and exporters add a \
         missing Date and Message-ID.",
    ),
    Key::new(
        "senders_file",
        Kind::File,
        "",
        "Addresses and domains as which users may send, a line each: USER: ADDRESS @DOMAIN; \"\": any.",
    ),
    Key::new(
        "senders_from",
        Kind::Choice(&["record", "reject"]),
        "record",
        "Mail whose From field is outside of senders_file; record: flagged as foreign_author; reject: 550.",
    ),
    Key::new(
        "proxy_protocol.mode",
        Kind::Choice(&["off", "required"]),
        "off",
        "required: each connection begins with a PROXY header, version 1 or 2.",
    ),
    Key::new(
        "proxy_protocol.trusted",
        Kind::List,
        "",
        "Networks of the proxies; other connections are closed.",
    ),
    Key::new(
        "xclient.trusted",
        Kind::List,
        "",
        "Networks that may use XCLIENT and XFORWARD; []: none.",
    ),
    Key::new(
        "accept.domains",
        Kind::List,
        "",
        "Domains whose recipients are accepted: example.com, *.example.com for all subdomains; *: \
         all.",
    ),
    Key::new("accept.domains_file", Kind::File, "", "File with more domains, one per line."),
    Key::new(
        "accept.recipients_file",
        Kind::File,
        "",
        "File with the recipients in these domains, one per line; \"\": any.",
    ),
    Key::new(
        "accept.subaddress",
        Kind::Text,
        "+",
        "Delimiter, such as +: user+detail is accepted if user is; \"\": off.",
    ),
    Key::new(
        "dns.lists",
        Kind::List,
        "",
        "DNS lists with weights, such as zen.example=5, allow.example=-3; queried before the \
         greeting.",
    ),
    Key::new(
        "dns.reject_at",
        Kind::Integer { least: 1, most: 1_000_000, word: None },
        "1",
        "Sum of weights from which recipients are refused.",
    ),
    Key::new(
        "dns.deadline",
        Kind::Duration { least: 10, most: 60_000, word: None },
        "2s",
        "Longest wait for DNS; a list that has not answered by then counts as 0.",
    ),
    Key::new("dns.reverse", Kind::Boolean, "false", "Look up the client's host name."),
    Key::new(
        "verify.methods",
        Kind::List,
        "",
        "Checks of the sender: spf, dkim, dmarc, arc, iprev; []: none. The verdict follows the mail.",
    ),
    Key::new(
        "verify.mode",
        Kind::Choice(&["record", "tag", "reject"]),
        "record",
        "Mail is accepted whatever the verdict is; tag: exporters and log get --received prepend it as \
         Authentication-Results; reject: as tag, and mail is judged before it is accepted.",
    ),
    Key::new(
        "verify.reject",
        Kind::List,
        "dmarc",
        "Mode reject: refuse mail that fails dmarc (where the domain's policy is reject) or spf, whose \
         From has a domain of yours without proof (own_domain), or names no author or several (from).",
    ),
    Key::new(
        "verify.deadline",
        Kind::Duration { least: 10, most: 15_000, word: None },
        "10s",
        "Mode reject: longest wait for a verdict; less than limits.timeout.commit.",
    ),
    Key::new(
        "verify.on_timeout",
        Kind::Choice(&["accept", "tempfail"]),
        "accept",
        "Mode reject: what mail gets that is not judged by then; tempfail: 451.",
    ),
    Key::new(
        "verify.except",
        Kind::List,
        "",
        "Mode reject: domains in From, such as example.com or *.example.com, whose mail is never refused.",
    ),
    Key::new(
        "verify.trusted",
        Kind::List,
        "",
        "Mode reject: networks of forwarders and mailing lists whose mail is never refused.",
    ),
    Key::new(
        "verify.authserv_id",
        Kind::Text,
        "",
        "The server's name in Authentication-Results; fields of others that claim it are renamed. \"\": \
         server.hostname.",
    ),
    Key::new(
        "greet_delay",
        Kind::Duration { least: 0, most: 60_000, word: None },
        "0s",
        "Delay before the greeting; with greet_check, clients that send anything during it are \
         refused.",
    ),
    Key::new(
        "greet_check",
        Kind::Boolean,
        "false",
        "Refuse clients that send anything before the \
         greeting.",
    ),
    Key::new(
        "priority",
        Kind::Choice(&["normal", "low"]),
        "normal",
        "low: refused first, with 452, when the server is overloaded.",
    ),
    Key::new(
        "dsn",
        Kind::Boolean,
        "false",
        "Offer DSN (RFC 3461); every exporter must pass it on.",
    ),
    Key::new(
        "require_tls",
        Kind::Boolean,
        "false",
        "Offer REQUIRETLS (RFC 8689); every exporter must use verified TLS.",
    ),
    Key::new("mt_priority", Kind::Boolean, "false", "Offer MT-PRIORITY (RFC 6710)."),
];
