//! What happened in a run: always as a hash, as text if somebody is to read it.

/// See the module's page.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(text: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: text.then(Vec::new) }
    }

    /// Notes an event; each `{}` of `what` stands for the next of the numbers.
    pub(super) fn note(&mut self, micros: u64, what: &'static str, numbers: &[u64]) {
        // The text's length and first octets name the event well enough for a hash.
        let octets = what.as_bytes();
        let name = octets.iter().take(24).fold(octets.len() as u64, |name, octet| {
            name.wrapping_mul(31).wrapping_add(u64::from(*octet))
        });
        self.mix(micros);
        self.mix(name);
        for number in numbers {
            self.mix(*number);
        }
        if let Some(lines) = &mut self.lines {
            let mut text = format!("{:>12.6}  ", micros as f64 / 1e6);
            let mut numbers = numbers.iter();
            let mut parts = what.split("{}");
            text.push_str(parts.next().unwrap_or_default());
            for part in parts {
                if let Some(number) = numbers.next() {
                    text.push_str(&number.to_string());
                }
                text.push_str(part);
            }
            lines.push(text);
        }
    }

    /// A line that is made only where somebody reads it; no part of the hash.
    pub(super) fn text(&mut self, micros: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6}  {}", micros as f64 / 1e6, line()));
        }
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
