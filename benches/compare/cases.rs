//! The cases: what is sent, and the echo pattern of the same exchanges and octets.

use crate::pattern::{Pattern, Step};
use crate::smtp::Offer;

/// What the loader says; the pattern counts these octets.
const GREETING: usize = "220 mx.test ESMTP mailrace\r\n".len();
const EHLO: (usize, usize) = ("EHLO client.test\r\n".len(), 160);
const MAIL: (usize, usize) =
    ("MAIL FROM:<loadtest@client.test>\r\n".len(), "250 2.1.0 Ok\r\n".len());
const RCPT: (usize, usize) = ("RCPT TO:<user@server.test>\r\n".len(), "250 2.1.5 Ok\r\n".len());
const DATA: (usize, usize) =
    ("DATA\r\n".len(), "354 Start mail input; end with <CRLF>.<CRLF>\r\n".len());
const QUIT: (usize, usize) = ("QUIT\r\n".len(), "221 2.0.0 Bye\r\n".len());
const FINAL: usize = "250 2.0.0 Ok: queued as 7f3a9c21b04e-003-00000000000002d5\r\n".len();

/// What a case finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Closed loop, as fast as it goes.
    Load,
    /// Open connections that say nothing.
    Idle,
    /// Mailrace alone, at half the rate it reached in [`HALF_OF`].
    HalfPeak,
    /// As [`Kind::Load`], Mailrace with one and with two shards.
    Shards,
}

/// The case whose peak the half is of, and whose load [`Kind::Shards`] repeats.
pub(crate) const HALF_OF: &str = "bdat-1k";

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    /// Messages on one connection before QUIT.
    pub(crate) per_connection: u64,
    pub(crate) depth: usize,
    /// Of a message; of a mix the mean.
    pub(crate) size: usize,
    /// Sizes and how many of a hundred messages have each; empty: all have [`Case::size`].
    mix: &'static [(usize, usize)],
    /// Each connection begins with STARTTLS.
    pub(crate) starttls: bool,
    carriage: Carriage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carriage {
    /// Each command waits for the reply to the one before.
    Unpipelined,
    /// MAIL, RCPT and DATA in one write, mail data in the next.
    Pipelined,
    /// All in one write.
    Bdat,
}

const UNLIMITED: u64 = 1_000_000_000;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What an MX gets: `mix:2k=35,10k=25,40k=20,120k=14,1m=5,5m=1`.
const MX: &[(usize, usize)] =
    &[(2 * KIB, 35), (10 * KIB, 25), (40 * KIB, 20), (120 * KIB, 14), (MIB, 5), (5 * MIB, 1)];

/// All cases, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    use Carriage::{Bdat, Pipelined, Unpipelined};
    let load = |id, title, carriage, size, depth, connections| Case {
        id,
        title,
        kind: Kind::Load,
        connections,
        per_connection: UNLIMITED,
        depth,
        size,
        mix: &[],
        starttls: false,
        carriage,
    };
    let mx = |id, title, per_connection, starttls| Case {
        per_connection,
        mix: MX,
        starttls,
        ..load(id, title, Pipelined, mean(MX), 1, 50)
    };
    let bdat = load("bdat-1k", "1 KiB, BDAT in one write, 1 in flight", Bdat, KIB, 1, 50);
    vec![
        load("data-1k", "1 KiB, DATA, not pipelined", Unpipelined, KIB, 1, 50),
        load("data-4k", "4 KiB, DATA, not pipelined", Unpipelined, 4 * KIB, 1, 50),
        load("pdata-1k", "1 KiB, DATA, pipelined", Pipelined, KIB, 1, 50),
        load("pdata-4k", "4 KiB, DATA, pipelined", Pipelined, 4 * KIB, 1, 50),
        bdat.clone(),
        load("bdat-1k-x8", "1 KiB, BDAT in one write, 8 in flight", Bdat, KIB, 8, 50),
        load("bdat-16k", "16 KiB, BDAT in one write, 1 in flight", Bdat, 16 * KIB, 1, 50),
        load("bdat-16k-x8", "16 KiB, BDAT in one write, 8 in flight", Bdat, 16 * KIB, 8, 50),
        load("data-1m", "1 MiB, DATA", Pipelined, MIB, 1, 8),
        load("bdat-1m", "1 MiB, BDAT", Bdat, MIB, 1, 8),
        Case {
            per_connection: 1,
            ..load("connect", "1 KiB, DATA, one message per connection", Pipelined, KIB, 1, 50)
        },
        mx("mx", "MX mix, STARTTLS, one message per connection", 1, true),
        mx("mx-plain", "MX mix in the clear, one message per connection", 1, false),
        mx("mx-keep", "MX mix, STARTTLS, 20 messages per connection", 20, true),
        Case {
            id: "half",
            title: "1 KiB, BDAT, open loop at half the peak rate",
            kind: Kind::HalfPeak,
            ..bdat.clone()
        },
        Case {
            id: "shards",
            title: "1 KiB, BDAT, 1 in flight: two shards that share the loader's core",
            kind: Kind::Shards,
            ..bdat.clone()
        },
        Case {
            id: "idle",
            title: "idle connections",
            kind: Kind::Idle,
            connections: 10_000,
            per_connection: 0,
            ..bdat
        },
    ]
}

fn mean(mix: &[(usize, usize)]) -> usize {
    let (octets, parts) = mix
        .iter()
        .fold((0, 0), |(octets, parts), (size, part)| (octets + size * part, parts + part));
    octets / parts.max(1)
}

impl Case {
    /// Options of the loader.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec![
            "--connections".to_owned(),
            self.connections.to_string(),
            "--size".to_owned(),
            self.sizes(),
            "--messages-per-connection".to_owned(),
            self.per_connection.to_string(),
            "--in-flight".to_owned(),
            self.depth.to_string(),
            "--pipelining".to_owned(),
            if self.carriage == Carriage::Unpipelined { "off" } else { "on" }.to_owned(),
        ];
        if self.carriage == Carriage::Bdat {
            options.push("--chunking".to_owned());
        }
        if self.starttls {
            options.extend(["--starttls", "--insecure"].map(str::to_owned));
        }
        options
    }

    /// As the loader reads them.
    fn sizes(&self) -> String {
        if self.mix.is_empty() {
            return self.size.to_string();
        }
        let parts: Vec<_> = self.mix.iter().map(|(size, part)| format!("{size}={part}")).collect();
        format!("mix:{}", parts.join(","))
    }

    /// Why a server that offers this cannot do it.
    pub(crate) fn lacks(&self, offer: Offer) -> Option<&'static str> {
        match self.carriage {
            _ if self.kind == Kind::Idle => None,
            _ if self.starttls && !offer.starttls => Some("no STARTTLS"),
            Carriage::Bdat if !offer.chunking => Some("no CHUNKING"),
            Carriage::Bdat | Carriage::Pipelined if !offer.pipelining => Some("no PIPELINING"),
            _ => None,
        }
    }

    /// A connection of this case without its exchanges; `None` where connections stay.
    pub(crate) fn close_pattern(&self) -> Option<Pattern> {
        let pattern = Pattern { greeting: FINAL, steps: Vec::new(), closes: true };
        (self.per_connection == 1 && self.mix.is_empty()).then_some(pattern)
    }

    /// The same exchanges for the echo, of a mix with messages of its mean; `None` where it has no
    /// counterpart.
    pub(crate) fn pattern(&self) -> Option<Pattern> {
        if self.kind != Kind::Load || self.starttls {
            return None;
        }
        // One line of the loader's text begins with a dot, which transparency doubles.
        let body = (self.size + 1 + ".\r\n".len(), FINAL);
        let sum = |parts: &[(usize, usize)]| {
            parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
        };
        let mut pattern = Pattern::of(&match self.carriage {
            Carriage::Unpipelined => vec![MAIL, RCPT, DATA, body],
            Carriage::Pipelined => vec![sum(&[MAIL, RCPT, DATA]), body],
            Carriage::Bdat => {
                let command = format!("BDAT {} LAST\r\n", self.size).len();
                vec![sum(&[MAIL, RCPT, (command + self.size, FINAL)])]
            }
        });
        if self.per_connection == 1 {
            let step = |(ask, answer)| Step { ask, answer };
            pattern.greeting = GREETING;
            pattern.closes = true;
            pattern.steps.insert(0, step(EHLO));
            pattern.steps.push(step(QUIT));
        }
        Some(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(id: &str) -> Case {
        all().into_iter().find(|case| case.id == id).unwrap()
    }

    #[test]
    fn patterns_count_exchanges_and_octets() {
        let steps = |id: &str| case(id).pattern().unwrap().steps.len();
        assert_eq!([steps("data-4k"), steps("pdata-4k"), steps("bdat-1k")], [4, 2, 1]);
        let unpipelined = case("data-4k").pattern().unwrap();
        assert_eq!(unpipelined.octets(), case("pdata-4k").pattern().unwrap().octets());
        let connect = case("connect").pattern().unwrap();
        assert!(connect.closes && connect.greeting > 0 && connect.steps.len() == 4);
        assert_eq!(case("idle").pattern(), None);
        let close = case("connect").close_pattern().unwrap();
        assert!(close.closes && close.steps.is_empty() && close.octets() < connect.octets());
        assert_eq!(case("data-4k").close_pattern(), None);
    }

    #[test]
    fn only_offered_extensions_are_used() {
        let plain = Offer::default();
        assert_eq!(case("data-1k").lacks(plain), None);
        assert_eq!(case("pdata-1k").lacks(plain), Some("no PIPELINING"));
        assert_eq!(case("bdat-1k").lacks(plain), Some("no CHUNKING"));
        let offer = Offer { pipelining: true, chunking: true, starttls: false };
        assert_eq!(case("bdat-1k").lacks(offer), None);
        assert_eq!(case("mx-plain").lacks(offer), None);
        assert_eq!(case("mx").lacks(offer), Some("no STARTTLS"));
        assert_eq!(case("idle").lacks(plain), None);
    }

    #[test]
    fn a_mix_is_told_to_the_loader_and_its_mean_to_the_echo() {
        let (mx, plain, keep) = (case("mx"), case("mx-plain"), case("mx-keep"));
        assert_eq!(MX.iter().map(|(_, part)| part).sum::<usize>(), 100);
        let line = mx.options().join(" ");
        assert!(
            line.contains("--size mix:2048=35,10240=25,40960=20,122880=14,1048576=5,5242880=1 ")
        );
        assert!(
            line.contains("--messages-per-connection 1 ")
                && line.ends_with("--starttls --insecure")
        );
        assert!(keep.options().join(" ").contains("--messages-per-connection 20 "));
        assert!(!plain.options().contains(&"--starttls".to_owned()));
        assert_eq!(mx.size, 133_529);
        let echo = plain.pattern().unwrap();
        assert!(echo.closes && echo.octets() > mx.size && echo.octets() < mx.size + 1_000);
        assert_eq!((mx.pattern(), keep.pattern(), plain.close_pattern()), (None, None, None));
    }
}
