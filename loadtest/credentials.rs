//! How connections authenticate: names and passwords from a file, in turn.

use std::{fs, path::Path, sync::Arc};

use mailrace_smtp::client::plain_response;

/// Initial responses of AUTH PLAIN (RFC 4616 §2), ready to be sent. Never shown.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    responses: Arc<[String]>,
}

impl Credentials {
    /// Reads lines of `user:password`; the first colon parts them, empty lines are skipped.
    ///
    /// # Errors
    /// A text for the user: the file cannot be read, or which line is none. It tells no password.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let named = |what: String| format!("--auth-file {}: {what}", path.display());
        let text = fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        parse(&text).map_err(named)
    }

    /// Those of the `number`th connection; `None` where nobody logs in.
    pub(super) fn of(&self, number: u64) -> Option<&str> {
        let count = self.responses.len().max(1) as u64;
        self.responses.get((number % count) as usize).map(String::as_str)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.responses.len())
    }
}

fn parse(text: &str) -> Result<Credentials, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let responses = lines.map(|(at, line)| match line.split_once(':') {
        // RFC 4616 §2: NUL parts what it parts.
        Some((user, password))
            if !user.is_empty() && !password.is_empty() && !line.contains('\0') =>
        {
            Ok(plain_response(user, password))
        }
        _ => Err(format!("line {} is not user:password", at + 1)),
    });
    let responses: Arc<[String]> = responses.collect::<Result<_, _>>()?;
    if responses.is_empty() {
        Err("it contains no user".to_owned())
    } else {
        Ok(Credentials { responses })
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn lines_are_taken_in_turn() {
        let credentials = parse("tim:tanstaaftanstaaf\n\nann:a:b\n").unwrap();
        // RFC 4616 §4.
        let tim = STANDARD.encode("\0tim\0tanstaaftanstaaf");
        let ann = STANDARD.encode("\0ann\0a:b");
        let told = (0..4).map(|number| credentials.of(number).unwrap()).collect::<Vec<_>>();
        assert_eq!(told, [&tim, &ann, &tim, &ann]);
        assert_eq!(Credentials::default().of(3), None);
        assert!(!format!("{credentials:?}").contains(&tim));
    }

    #[test]
    fn other_lines_are_refused_by_number() {
        for (bad, what) in
            [("", "no user"), ("a:b\nsecret", "line 2 "), (":b", "line 1 "), ("a:", "line 1 ")]
        {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(what) && !error.contains("secret"), "{error}");
        }
    }
}
