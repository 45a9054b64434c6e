//! The traffic pattern of a case: how many octets each side sends before the other answers.
//!
//! Written as `GREETING/ASK:ANSWER,ASK:ANSWER...`, octets all of them, with `!` behind it where the
//! server closes after the last answer. Octets sent at once in one direction count as one. Without
//! an exchange, `GREETING/!`, the server accepts, says its greeting and closes.

use std::{fmt, str::FromStr};

/// What one connection exchanges for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Octets the server sends on accept.
    pub(crate) greeting: usize,
    pub(crate) steps: Vec<Step>,
    /// The server closes after the last answer; the client connects again.
    pub(crate) closes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) ask: usize,
    pub(crate) answer: usize,
}

impl Pattern {
    pub(crate) fn of(steps: &[(usize, usize)]) -> Self {
        let steps = steps.iter().map(|&(ask, answer)| Step { ask, answer }).collect();
        Self { greeting: 0, steps, closes: false }
    }

    /// Octets of one message, both directions.
    pub(crate) fn octets(&self) -> usize {
        self.greeting + self.steps.iter().map(|step| step.ask + step.answer).sum::<usize>()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.greeting)?;
        for (index, Step { ask, answer }) in self.steps.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{ask}:{answer}")?;
        }
        f.write_str(if self.closes { "!" } else { "" })
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not GREETING/ASK:ANSWER,...");
        let (greeting, rest) = text.split_once('/').ok_or_else(bad)?;
        let (exchanges, closes) = match rest.strip_suffix('!') {
            Some(exchanges) => (exchanges, true),
            None => (rest, false),
        };
        let greeting = greeting.parse().map_err(|_| bad())?;
        if exchanges.is_empty() && closes && greeting > 0 {
            return Ok(Self { greeting, steps: Vec::new(), closes });
        }
        let steps = exchanges.split(',').map(|step| {
            let (ask, answer) = step.split_once(':')?;
            let (ask, answer) = (ask.parse().ok()?, answer.parse().ok()?);
            // Nothing to wait for would be no exchange.
            (ask > 0 && answer > 0).then_some(Step { ask, answer })
        });
        Ok(Self { greeting, steps: steps.collect::<Option<_>>().ok_or_else(bad)?, closes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_survives_its_text() {
        for text in ["0/1100:90", "30/20:150,80:60,1100:60,6:20!", "0/1:1,2:2", "57/!"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        let pattern: Pattern = "30/20:150,1:2!".parse().unwrap();
        assert_eq!((pattern.octets(), pattern.closes), (203, true));
        for bad in ["", "0/", "0/!", "57/", "1:2", "0/1", "0/0:1", "0/1:0", "x/1:2", "0/1:2,"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
