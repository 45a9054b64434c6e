//! Date fields (RFC 5322 §3.3), with the short years and the zones of §4.3.

use mail_parser::DateTime;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Seconds since 1970; nonsense is none.
pub(super) fn date(value: &[u8]) -> Option<i64> {
    let text = plain(value)?;
    let mut tokens = text.split([' ', '\t', ',']).filter(|token| !token.is_empty()).peekable();
    // The day of the week is not checked: it says nothing more.
    tokens.next_if(|token| token.bytes().all(|octet| octet.is_ascii_alphabetic() || octet == b'.'));
    let day = number(tokens.next()?, 2)?;
    let month = tokens.next()?.get(..3)?.to_ascii_lowercase();
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year = tokens.next()?;
    let year = match (year.len(), number(year, 4)?) {
        (2, year @ 0..50) => 2_000 + year,
        (2 | 3, year) => 1_900 + year,
        (4, year @ 1_900..) => year,
        _ => return None,
    };
    let mut clock = tokens.next()?.split(':');
    let (hour, minute) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    // A leap second is the one before.
    let second = clock.next().map_or(Some(0), |second| number(second, 2))?;
    let second = if second == 60 { 59 } else { second };
    if hour > 23 || minute > 59 || second > 59 || clock.next().is_some() {
        return None;
    }
    let zone = tokens.next().map_or(Some(0), zone)?;
    let small = |number: u16| u8::try_from(number).ok();
    let local = DateTime {
        year,
        month: u8::try_from(month).ok()?,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        second: small(second)?,
        tz_before_gmt: false,
        tz_hour: 0,
        tz_minute: 0,
    };
    // The 31st of a month that has 30 days would become the first of the next.
    let same = DateTime::from_timestamp(local.to_timestamp());
    ((same.month, same.day) == (local.month, local.day)).then(|| local.to_timestamp() - zone)
}

fn number(digits: &str, most: usize) -> Option<u16> {
    let fits = (1..=most).contains(&digits.len()) && digits.bytes().all(|o| o.is_ascii_digit());
    digits.parse().ok().filter(|_| fits)
}

/// Seconds to the east. RFC 5322 §4.3: a name that is not in the list says nothing.
fn zone(name: &str) -> Option<i64> {
    let hours = match name.to_ascii_uppercase().as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        letters if letters.bytes().all(|octet| octet.is_ascii_alphabetic()) => 0,
        _ => {
            let sign = if name.starts_with('-') { -1 } else { 1 };
            let digits = name.strip_prefix(['+', '-'])?;
            let value = i64::from(number(digits, 4).filter(|_| digits.len() == 4)?);
            let fits = value / 100 < 24 && value % 100 < 60;
            return fits.then_some(sign * (value / 100 * 3_600 + value % 100 * 60));
        }
    };
    Some(hours * 3_600)
}

/// Without comments.
fn plain(value: &[u8]) -> Option<String> {
    let mut depth = 0_usize;
    let mut text = String::new();
    for character in std::str::from_utf8(value).ok()?.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => text.push(character),
            _ => {}
        }
    }
    Some(text)
}
