//! RANGE: the records that a command selects.
//!
//! `start`, `end`, `N`, `N:M` (half-open), `+N` (after the start), `-N` (before the end), `:M`,
//! `N:`, and times in UTC: `@2026-11-22`, `@2026-11-22T18:04:05Z` (with or without fraction and
//! `Z`), `@-1h` (`s`, `m`, `h`, `d`), each also as one side of `:`, where the second needs no `@`.

use std::{fmt, str::FromStr};

/// One side of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// This offset.
    At(u64),
    /// So many after the log start.
    AfterStart(u64),
    /// So many before the log end.
    BeforeEnd(u64),
    /// The first record received at or after this time, microseconds since 1970.
    Time(i64),
    /// So long before now, in microseconds.
    Ago(i64),
}

impl Bound {
    /// The time that it is, microseconds since 1970; `None`: it counts offsets.
    #[must_use]
    pub fn time(self, now: i64) -> Option<i64> {
        match self {
            Self::Time(time) => Some(time),
            Self::Ago(ago) => Some(now.saturating_sub(ago)),
            Self::At(_) | Self::AfterStart(_) | Self::BeforeEnd(_) => None,
        }
    }
}

/// A half-open range of records in one shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First record.
    pub from: Bound,
    /// Behind the last; none: the end.
    pub to: Option<Bound>,
}

impl Range {
    /// Every record.
    pub const ALL: Self = Self { from: Bound::AfterStart(0), to: None };

    /// Whether it ends before it starts, or where it starts, whatever the log holds.
    #[must_use]
    pub fn is_reversed(&self) -> bool {
        match (self.from, self.to) {
            (Bound::At(from), Some(Bound::At(to))) => from >= to,
            (Bound::AfterStart(from), Some(Bound::AfterStart(to))) => from >= to,
            (Bound::Time(from), Some(Bound::Time(to))) => from >= to,
            // More before the end is earlier.
            (Bound::BeforeEnd(from), Some(Bound::BeforeEnd(to))) => from <= to,
            (Bound::Ago(from), Some(Bound::Ago(to))) => from <= to,
            _ => false,
        }
    }
}

/// A text that is not a valid range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange(String);

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a valid range: start, end, N, N:M, +N, -N, :M, @2026-11-22, @-1h, @T1:T2",
            self.0
        )
    }
}

impl std::error::Error for BadRange {}

impl FromStr for Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        parse(text).ok_or_else(|| BadRange(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Range> {
    // The times hold colons themselves: a side is cut only where both halves make sense.
    for (at, _) in text.match_indices(':') {
        let (from, to) = (text.get(..at)?, text.get(at + 1..)?);
        let timed = from.starts_with('@');
        let from = if from.is_empty() { Some(Bound::AfterStart(0)) } else { bound(from) };
        let to = match to {
            "" => Some(None),
            // Behind a time `-24h` is a time as well; what is none is an offset.
            _ if timed => bound(&format!("@{to}")).or_else(|| bound(to)).map(Some),
            _ => bound(to).map(Some),
        };
        if let (Some(from), Some(to)) = (from, to) {
            return Some(Range { from, to });
        }
    }
    bound(text).map(|from| Range { from, to: None })
}

fn bound(text: &str) -> Option<Bound> {
    match text {
        "start" => return Some(Bound::AfterStart(0)),
        "end" => return Some(Bound::BeforeEnd(0)),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return match time.strip_prefix('-') {
            Some(ago) => duration(ago).map(Bound::Ago),
            None => instant(time).map(Bound::Time),
        };
    }
    if let Some(count) = text.strip_prefix('+') {
        return number(count).map(Bound::AfterStart);
    }
    if let Some(count) = text.strip_prefix('-') {
        return number(count).map(Bound::BeforeEnd);
    }
    number(text).map(Bound::At)
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `90s`, `5m`, `1h`, `2d`, in microseconds.
fn duration(text: &str) -> Option<i64> {
    let digits = text.get(..text.len().checked_sub(1)?)?;
    let seconds = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    i64::try_from(number(digits)?).ok()?.checked_mul(seconds * 1_000_000)
}

/// `2026-11-22` or `2026-11-22T18:04:05Z` (RFC 3339, UTC), in microseconds since 1970.
fn instant(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z').unwrap_or(time)),
        None => (text, "00:00:00"),
    };
    let (time, micros) = match time.split_once('.') {
        Some((time, digits)) if (1..=6).contains(&digits.len()) => {
            (time, number(digits)? * 10_u64.pow(6 - digits.len() as u32))
        }
        Some(_) => return None,
        None => (time, 0),
    };
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let good = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !good {
        return None;
    }
    let days = days_from_civil(i64::try_from(year).ok()?, month as i64, day as i64);
    let seconds = days * 86_400 + (hour * 3_600 + minute * 60 + second) as i64;
    Some(seconds * 1_000_000 + micros as i64)
}

fn days_of_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time in RFC 3339 format, in UTC: `2026-11-22T18:04:05Z`.
#[must_use]
pub fn format_time(unix_micros: i64) -> String {
    let seconds = unix_micros.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

/// As [`format_time`], with microseconds: `2026-11-22T18:04:05.123456Z`.
#[must_use]
pub fn format_time_micros(unix_micros: i64) -> String {
    let mut text = format_time(unix_micros);
    text.pop();
    format!("{text}.{:06}Z", unix_micros.rem_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        use Bound::*;
        let day = 1_795_305_600_000_000;
        let cases = [
            ("start", AfterStart(0), None),
            ("end", BeforeEnd(0), None),
            ("7", At(7), None),
            ("7:9", At(7), Some(At(9))),
            ("+3", AfterStart(3), None),
            ("-3", BeforeEnd(3), None),
            (":end", AfterStart(0), Some(BeforeEnd(0))),
            (":7", AfterStart(0), Some(At(7))),
            (":@-1h", AfterStart(0), Some(Ago(3_600_000_000))),
            ("5:", At(5), None),
            ("start:end", AfterStart(0), Some(BeforeEnd(0))),
            ("-5:-2", BeforeEnd(5), Some(BeforeEnd(2))),
            ("+1:+3", AfterStart(1), Some(AfterStart(3))),
            ("@-2d:end", Ago(172_800_000_000), Some(BeforeEnd(0))),
            ("@-2d:", Ago(172_800_000_000), None),
            ("@-90m:@-30s", Ago(5_400_000_000), Some(Ago(30_000_000))),
            ("@-1h:-5", Ago(3_600_000_000), Some(BeforeEnd(5))),
            ("@-1h:700", Ago(3_600_000_000), Some(At(700))),
            ("@-1h", Ago(3_600_000_000), None),
            ("@-48h:-24h", Ago(172_800_000_000), Some(Ago(86_400_000_000))),
            ("@2026-11-22", Time(day), None),
            ("@2026-11-22T01:00:00Z", Time(day + 3_600_000_000), None),
            ("@2026-11-22T01:00:00", Time(day + 3_600_000_000), None),
            ("@2026-11-22T00:00:01.5Z", Time(day + 1_500_000), None),
            ("@2026-11-22:2026-11-23", Time(day), Some(Time(day + 86_400_000_000))),
            ("@2026-11-22:@2026-11-23", Time(day), Some(Time(day + 86_400_000_000))),
            (
                "@2026-11-22T01:00:00Z:2026-11-22T02:00:00Z",
                Time(day + 3_600_000_000),
                Some(Time(day + 7_200_000_000)),
            ),
            (
                "@2026-11-22T01:00:00Z:2026-11-23",
                Time(day + 3_600_000_000),
                Some(Time(day + 86_400_000_000)),
            ),
        ];
        for (text, from, to) in cases {
            assert_eq!(text.parse(), Ok(Range { from, to }), "{text}");
        }
        for bad in [
            "",
            "x",
            "1:x",
            "--3",
            "+",
            "-",
            "@",
            "@x",
            "@-1y",
            "@-h",
            "@2026-13-01",
            "1.5",
            "1:2:3",
            "@2026-02-29",
            "@2026-04-31",
            "@2026-11-22T1",
            "@2026-11-22T24:00:00Z",
            "@2026-11-22T00:00:00.Z",
            "@2026-11-22T00:00:00+01:00",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for seconds in [0, 951_782_400, 1_795_305_600, 1_795_365_845, 4_102_444_799] {
            let text = format_time(seconds * 1_000_000);
            assert_eq!(instant(&text), Some(seconds * 1_000_000), "{text}");
        }
        assert_eq!(format_time(1_795_370_645_000_000), "2026-11-22T18:04:05Z");
        let text = format_time_micros(1_795_370_645_001_002);
        assert_eq!(text, "2026-11-22T18:04:05.001002Z");
        assert_eq!(instant(&text), Some(1_795_370_645_001_002));
    }
}
