//! Does the client's address have a name that leads back to it (RFC 8601 §2.7.3)?

use std::net::IpAddr;

use mailrace_log::{AuthWord, Check};

use crate::questions::{NoAnswer, Questions};

/// Names of a client that are looked at.
const NAMES_MAX: usize = 10;

pub(crate) async fn check(questions: &Questions, client: IpAddr) -> Check {
    let client = client.to_canonical();
    let word =
        |result, reason: &str| Check { result, reason: reason.to_owned(), ..Check::default() };
    let names = match questions.names(client).await {
        Ok(names) => names,
        Err(NoAnswer::NoName | NoAnswer::NoRecord) => {
            return word(AuthWord::Permerror, "the address has no name");
        }
        Err(NoAnswer::Failed | NoAnswer::Budget) => {
            return word(AuthWord::Temperror, "DNS did not answer");
        }
    };
    let mut trouble = false;
    for name in names.iter().take(NAMES_MAX) {
        match questions.addresses(name, client.is_ipv4()).await {
            Ok(addresses) if addresses.contains(&client) => {
                return Check { domain: name.to_string(), ..word(AuthWord::Pass, "") };
            }
            Err(NoAnswer::Failed | NoAnswer::Budget) => trouble = true,
            _ => {}
        }
    }
    let domain = names.first().map(|name| name.to_string()).unwrap_or_default();
    match trouble {
        true => Check { domain, ..word(AuthWord::Temperror, "DNS did not answer") },
        false => Check { domain, ..word(AuthWord::Fail, "the name has another address") },
    }
}
