//! What a server offers in its reply to EHLO or LHLO (RFC 5321 §4.1.1.1).

use super::reply::Reply;

/// Service extensions this client makes use of. Nothing is offered by default, as after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// RFC 2920.
    pub(super) pipelining: bool,
    /// RFC 3030.
    pub(super) chunking: bool,
    /// RFC 3030.
    pub(super) binarymime: bool,
    /// RFC 6152.
    pub(super) eight_bit: bool,
    /// RFC 6531.
    pub(super) smtputf8: bool,
    /// RFC 3207.
    pub(super) starttls: bool,
    /// RFC 1870: `SIZE` is known; with `Some(limit)` in octets, which is not 0.
    pub(super) size: Option<Option<u64>>,
    /// RFC 4954, with PLAIN among the mechanisms.
    pub(super) auth_plain: bool,
    /// RFC 9422: most recipients of a transaction.
    pub(super) rcpt_max: Option<usize>,
    /// RFC 9422: most transactions of a session.
    pub(super) mail_max: Option<usize>,
    /// RFC 3461.
    pub(super) dsn: bool,
    /// RFC 8689.
    pub(super) require_tls: bool,
}

impl Offer {
    /// Reads the keywords after the first line, which names the server.
    pub(super) fn read(reply: &Reply) -> Self {
        let mut offer = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            // RFC 5321 §2.4: keywords are case-insensitive.
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => offer.pipelining = true,
                "CHUNKING" => offer.chunking = true,
                "BINARYMIME" => offer.binarymime = true,
                "8BITMIME" => offer.eight_bit = true,
                "SMTPUTF8" => offer.smtputf8 = true,
                "STARTTLS" => offer.starttls = true,
                "DSN" => offer.dsn = true,
                "REQUIRETLS" => offer.require_tls = true,
                // RFC 1870 §4: 0, or no number, is no fixed limit.
                "SIZE" => {
                    let limit = words.next().and_then(|number| number.parse().ok());
                    offer.size = Some(limit.filter(|limit| *limit > 0));
                }
                "AUTH" => {
                    offer.auth_plain |= words.any(|word| word.eq_ignore_ascii_case("PLAIN"));
                }
                "LIMITS" => words.for_each(|word| offer.read_limit(word)),
                _ => {}
            }
        }
        offer
    }

    fn read_limit(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let Some(value) = value.parse().ok().filter(|value| *value > 0) else { return };
        match name.to_ascii_uppercase().as_str() {
            "RCPTMAX" => self.rcpt_max = Some(value),
            "MAILMAX" => self.mail_max = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lines: &[&str]) -> Offer {
        let lines = lines.iter().map(ToString::to_string).collect();
        Offer::read(&Reply { code: 250, lines })
    }

    #[test]
    fn rfc5321_4_1_1_1_keywords_behind_the_name() {
        assert_eq!(offer(&["PIPELINING CHUNKING"]), Offer::default());
        let all = offer(&[
            "mx.test Hello",
            "pipelining",
            "SIZE 1000",
            "8BITMIME",
            "SmtpUtf8",
            "AUTH LOGIN plain",
            "STARTTLS",
            "dsn",
            "RequireTLS",
            "CHUNKING",
            "BINARYMIME",
            "X-UNKNOWN 5",
            "",
            "LIMITS RCPTMAX=20 MAILMAX=7 OTHER=1 RCPTMAX",
        ]);
        let expected = Offer {
            pipelining: true,
            chunking: true,
            binarymime: true,
            eight_bit: true,
            smtputf8: true,
            starttls: true,
            size: Some(Some(1_000)),
            auth_plain: true,
            rcpt_max: Some(20),
            mail_max: Some(7),
            dsn: true,
            require_tls: true,
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn rfc1870_4_zero_or_nothing_is_no_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE x"] {
            assert_eq!(offer(&["mx", line]).size, Some(None), "{line}");
        }
        assert_eq!(offer(&["mx"]).size, None);
    }

    #[test]
    fn rfc9422_a_limit_of_zero_is_none() {
        assert_eq!(offer(&["mx", "LIMITS RCPTMAX=0 MAILMAX=-1"]), Offer::default());
    }
}
