//! Passwords as they are compared: SASLprep (RFC 4013), which RFC 4616 §2 (PLAIN) and RFC 5802 §2.2
//! (SCRAM) ask for. The same password typed on another system, with a no-break space, a ligature, a
//! soft hyphen or letters and accents apart, is then the same.

use std::borrow::Cow;

/// What is hashed and compared for a password.
///
/// # Errors
/// Why there is none, for the user who chooses the password: never with the password itself.
pub(super) fn prepare(password: &str) -> Result<Cow<'_, str>, String> {
    let prepared = stringprep::saslprep(password).map_err(|error| {
        format!("the password contains {}", cause(password, &error.to_string()))
    })?;
    match prepared.is_empty() {
        true => Err("the password is empty".to_owned()),
        false => Ok(prepared),
    }
}

/// In words that name the character by its number: it may be invisible, and the rest is a secret.
fn cause(password: &str, error: &str) -> String {
    if password.chars().any(char::is_control) {
        return "control characters".to_owned();
    }
    match error.strip_prefix("prohibited character `").and_then(|rest| rest.chars().next()) {
        Some(found) => {
            format!("U+{:04X}, which SASLprep (RFC 4013) does not allow", u32::from(found))
        }
        None => "letters of right-to-left and left-to-right scripts together, or a right-to-left \
                 one not at both ends, which SASLprep (RFC 4013) does not allow"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4013 §3, and what keyboards of several systems make of one password.
    #[test]
    fn rfc4013_3_examples() {
        for (given, prepared) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
            ("\u{fb01}sh\u{a0}\u{2003}x", "fish  x"),
            ("e\u{301}", "\u{e9}"),
            ("\u{ff41}\u{ff42}", "ab"),
            (" a  b ", " a  b "),
            ("\u{627}1\u{628}", "\u{627}1\u{628}"),
        ] {
            assert_eq!(prepare(given).as_deref(), Ok(prepared), "{given:?}");
        }
        for (given, wanted) in [
            ("", "the password is empty"),
            ("\u{ad}", "the password is empty"),
            ("a\u{7}b", "control characters"),
            ("a\u{85}b", "control characters"),
            ("a\u{e000}b", "U+E000, which SASLprep"),
            ("a\u{202e}b", "U+202E, which SASLprep"),
            ("a\u{fffd}b", "U+FFFD, which SASLprep"),
            // Not in Unicode 3.2, to which RFC 3454 is bound: clients differ in what they do with it.
            ("a\u{1f600}b", "U+1F600, which SASLprep"),
            ("\u{627}1", "right-to-left"),
        ] {
            let error = prepare(given).unwrap_err();
            assert!(error.contains(wanted), "{given:?}: {error}");
        }
    }
}
