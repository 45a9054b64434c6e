//! What a server offers in its reply to EHLO or LHLO (RFC 5321 §4.1.1.1).

/// Service extensions that a client makes use of. Nothing is offered by default, as after HELO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3030.
    pub binarymime: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 1870: `SIZE` is known; with `Some(limit)` in octets, which is not 0.
    pub size: Option<Option<u64>>,
    /// RFC 4954, with PLAIN among the mechanisms.
    pub auth_plain: bool,
    /// RFC 9422: most recipients of a transaction.
    pub rcpt_max: Option<usize>,
    /// RFC 9422: most transactions of a session.
    pub mail_max: Option<usize>,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 8689.
    pub require_tls: bool,
}

impl Offer {
    /// Takes note of a line of the reply, after the first, which names the server.
    pub fn note(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        // RFC 5321 §2.4: keywords are case-insensitive.
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binarymime = true,
            "8BITMIME" => self.eight_bit = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "STARTTLS" => self.starttls = true,
            "DSN" => self.dsn = true,
            "REQUIRETLS" => self.require_tls = true,
            // RFC 1870 §4: 0, or no number, is no fixed limit.
            "SIZE" => {
                let limit = words.next().and_then(|number| number.parse().ok());
                self.size = Some(limit.filter(|limit| *limit > 0));
            }
            "AUTH" => self.auth_plain |= words.any(|word| word.eq_ignore_ascii_case("PLAIN")),
            "LIMITS" => words.for_each(|word| self.read_limit(word)),
            _ => {}
        }
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
        let mut offer = Offer::default();
        lines.iter().for_each(|line| offer.note(line));
        offer
    }

    #[test]
    fn rfc5321_4_1_1_1_keywords() {
        let all = offer(&[
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
            assert_eq!(offer(&[line]).size, Some(None), "{line}");
        }
        assert_eq!(offer(&[]).size, None);
    }

    #[test]
    fn rfc9422_a_limit_of_zero_is_none() {
        assert_eq!(offer(&["LIMITS RCPTMAX=0 MAILMAX=-1"]), Offer::default());
    }
}
