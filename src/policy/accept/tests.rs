use std::collections::HashSet;
use std::io::Write;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;
use Recipient::{Foreign, Ours, Unknown};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(domains: &[&str], recipients: Option<&str>) -> Accept {
    let recipients = recipients.map(file);
    let options = AcceptOptions {
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        recipients_file: recipients.as_ref().map(|file| file.path().to_owned()),
        subaddress: Some('+'),
        ..AcceptOptions::default()
    };
    Accept::load(&options).unwrap()
}

#[track_caller]
fn check(accept: &Accept, wanted: Recipient, mailboxes: &[&str]) {
    for mailbox in mailboxes {
        assert_eq!(accept.judge(mailbox), wanted, "{mailbox}");
    }
}

#[test]
fn domains_are_exact_or_below_a_wildcard() {
    let accept = load(&["example.com", "*.example.org", "ü.example"], None);
    // The dot of the root names the same domain.
    check(&accept, Ours, &["a@example.com.", "a@x.example.org."]);
    check(
        &accept,
        Ours,
        &["a@example.com", "a@EXAMPLE.com", "a@x.example.org", "a@x.y.Example.org"],
    );
    check(&accept, Ours, &["a@ü.example", "a@XN--TDA.example", "\"a @b\"@example.com"]);
    check(&accept, Foreign, &["a@x.example.com", "a@example.org", "a@xexample.org", "a@com"]);
    check(&accept, Foreign, &["a@[192.0.2.1]", "a@example.com..", "a@u.example", "someone"]);
    check(
        &accept,
        Foreign,
        &["a%example.com@elsewhere.example", "example.com!a@elsewhere.example"],
    );
    assert_eq!((accept.domains(), accept.recipients()), (Some(3), None));
}

/// C7, C7a: what MAIL and RCPT take beyond the grammar is compared like the rest.
#[test]
fn names_of_real_senders_are_ours_as_well() {
    let long = format!("{}@b_1.example", "l".repeat(255));
    let text = format!("a..b@b_1.example.\n{long}\n@whole_1.example\n");
    let accept = load(&["example.com.", "*.x_y.example", "bü_1.example"], Some(&text));
    check(&accept, Ours, &["a..b@B_1.example", "\"a..b\"@b_1.example.", &long]);
    check(&accept, Ours, &[&format!("{long}."), "x@whole_1.example."]);
    check(&accept, Unknown, &["a.b@b_1.example", &long[1..], "a@EXAMPLE.com.", "a@c.x_y.example."]);
    check(&accept, Unknown, &["a@bü_1.example", "a@Bü_1.example."]);
    check(&accept, Foreign, &["a@x_y.example", "a@b_2.example"]);
    let open = load(&["example.com"], None);
    check(&open, Ours, &[&format!("{}@example.com", "l".repeat(255))]);
}

#[test]
fn lists_hold_underscores_and_the_dot_of_the_root() {
    let domains = ["db_1.example", "*.my_net.example", "dot.example.", "*.below.example."];
    let accept = load(&domains, None);
    for domain in ["db_1.example", "a.my_net.example", "dot.example", "a_b.below.example"] {
        check(&accept, Ours, &[&format!("a@{domain}"), &format!("A@{domain}.")]);
    }
    check(&accept, Foreign, &["a@db-1.example", "a@dbx1.example", "a@my_net.example", "a@."]);
    let accept = load(&[], Some("root@db_1.example\nuser@dot.example.\n@all_1.example.\n"));
    check(&accept, Ours, &["root@db_1.example", "user@dot.example", "any@all_1.example"]);
    check(&accept, Unknown, &["other@db_1.example"]);
    for bad in ["a..example", ".", "a b.example", "example..", "-a.example", ""] {
        let options = AcceptOptions { domains: vec![bad.to_owned()], ..AcceptOptions::default() };
        assert!(Accept::load(&options).is_err(), "{bad:?}");
    }
}

#[test]
fn a_star_takes_all_but_address_literals() {
    let accept = load(&["*"], None);
    check(&accept, Ours, &["a@b", "a@example.com", "a@ü.example"]);
    check(&accept, Foreign, &["a@[192.0.2.1]", "a@[IPv6:::1]"]);
    assert_eq!(accept.domains(), None);
}

#[test]
fn recipients_are_those_of_the_file() {
    let accept = load(
        &["served.example"],
        Some(
            "# comment\r\n\r\n  Bob@example.com  \r\nq.r@example.com\n\"a b\"@example.com\n\
             x+y@example.com\n@whole.example\n@*.sub.example\nü@ö.example\na@[IPv6:2001:db8::1]\n\
             bob@example.com",
        ),
    );
    check(&accept, Ours, &["bob@example.com", "Bob@Example.com", "BOB@EXAMPLE.COM"]);
    check(&accept, Ours, &["\"bob\"@example.com", "\"b\\ob\"@example.com", "\"q.r\"@example.com"]);
    check(&accept, Ours, &["\"a b\"@example.com", "\"A b\"@example.com"]);
    check(&accept, Ours, &["bob+tag@example.com", "bob+a+b@example.com", "bob+@example.com"]);
    check(&accept, Ours, &["x+y@example.com", "any@whole.example", "any+x@a.sub.example"]);
    check(&accept, Ours, &["ü@ö.example", "ü@xn--nda.example", "a@[IPv6:2001:DB8:0:0::1]"]);
    check(
        &accept,
        Unknown,
        &["x@example.com", "bo@example.com", "bobb@example.com", "+bob@example.com"],
    );
    check(&accept, Unknown, &["Ü@ö.example", "bob@served.example", "b@[IPv6:2001:db8::1]"]);
    check(&accept, Unknown, &["bob%example.com@example.com", "tag+bob@example.com"]);
    check(&accept, Foreign, &["bob@example.org", "any@sub.example", "a@[IPv6:2001:db8::2]"]);
    // 1 served, example.com, whole.example, *.sub.example, ö.example and the literal.
    assert_eq!((accept.domains(), accept.recipients()), (Some(6), Some(8)));
}

/// RFC 5321 §4.5.1.
#[test]
fn postmaster_is_always_ours() {
    let accept = load(&["served.example", "*.wild.example"], Some("bob@example.com\n"));
    check(&accept, Ours, &["postmaster", "PostMaster", "postmaster@served.example"]);
    check(&accept, Ours, &["POSTMASTER@Example.com", "postmaster@x.wild.example"]);
    check(&accept, Ours, &["\"postmaster\"@served.example", "postmaster+x@served.example"]);
    check(&accept, Foreign, &["postmaster@elsewhere.example", "postmaster@[192.0.2.1]"]);
}

#[test]
fn without_a_delimiter_a_detail_is_part_of_the_name() {
    let recipients = file("bob@example.com\n");
    let mut options = AcceptOptions {
        recipients_file: Some(recipients.path().to_owned()),
        ..AcceptOptions::default()
    };
    check(&Accept::load(&options).unwrap(), Unknown, &["bob+x@example.com"]);
    options.subaddress = Some('-');
    let accept = Accept::load(&options).unwrap();
    check(&accept, Ours, &["bob-x@example.com"]);
    check(&accept, Unknown, &["bob+x@example.com"]);
}

#[test]
fn a_mistake_names_file_and_line() {
    for (text, wanted) in [
        ("a@b\n\n# c\nnobody\n", ":4: \"nobody\" is not a mailbox such as user@example.com"),
        ("a b@c", ":1: \"a b@c\" is not a mailbox"),
        ("@a@b", ":1: \"a@b\" is not a domain"),
        ("@-a", ":1: \"-a\" is not a domain"),
        ("@*.[192.0.2.1]", ":1: \"*.[192.0.2.1]\" is not a domain"),
        ("a@b c", ":1: \"a@b c\" is not a mailbox"),
        ("<a@b>", ":1: \"<a@b>\" is not a mailbox"),
    ] {
        let recipients = file(text);
        let options = AcceptOptions {
            recipients_file: Some(recipients.path().to_owned()),
            ..AcceptOptions::default()
        };
        let error = Accept::load(&options).unwrap_err().remove(0);
        assert_eq!(error.field, "recipients_file");
        let wanted = format!("{}{wanted}", recipients.path().display());
        assert!(error.message.starts_with(&wanted), "{error} for {text:?}, not {wanted}");
    }
    let mut domains = file("ok.example\n");
    domains.write_all(&[0xff, b'\n']).unwrap();
    let mut options =
        AcceptOptions { domains_file: Some(domains.path().into()), ..AcceptOptions::default() };
    let error = Accept::load(&options).unwrap_err().remove(0);
    assert_eq!(
        error.to_string(),
        format!("accept.domains_file: {}:2: not UTF-8", domains.path().display())
    );
    let long = file(&"a".repeat(5000));
    options.domains_file = Some(long.path().into());
    assert!(Accept::load(&options).unwrap_err()[0].message.ends_with(":1: the line is too long"));
    options.domains_file = Some("/nowhere/at/all".into());
    let error = Accept::load(&options).unwrap_err().remove(0);
    assert!(error.message.starts_with("/nowhere/at/all: No such file"), "{error}");
    // Each file is named, not the first that is wrong.
    options.recipients_file = Some(long.path().into());
    let files: Vec<_> =
        Accept::load(&options).unwrap_err().into_iter().map(|error| error.file.unwrap()).collect();
    assert_eq!(files, [Path::new("/nowhere/at/all"), long.path()]);
}

/// Characters that make parts meet: few letters, a delimiter, dots.
const LOCAL: &str = "[aB+.]{1,4}";
const DOMAIN: &str = "(x|Y|x\\.y|y\\.X|x\\.x\\.y)";

/// The same by plain means.
struct Twin {
    mailboxes: HashSet<String>,
    domains: Vec<String>,
}

impl Twin {
    fn judge(&self, mailbox: &str) -> Recipient {
        let mailbox = mailbox.to_lowercase();
        let (local, domain) = mailbox.split_once('@').unwrap();
        let listed = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(below) => domain.ends_with(&format!(".{below}")),
            None => domain == pattern,
        };
        let of_listed = |mailbox: &String| mailbox.ends_with(&format!("@{domain}"));
        if !self.domains.iter().any(listed) && !self.mailboxes.iter().any(of_listed) {
            return Foreign;
        }
        let user = local.chars().take(1).chain(local.chars().skip(1).take_while(|c| *c != '+'));
        let user = format!("{}@{domain}", user.collect::<String>());
        match self.mailboxes.contains(&mailbox) || self.mailboxes.contains(&user) {
            true => Ours,
            false => Unknown,
        }
    }
}

proptest! {
    #[test]
    fn it_judges_as_its_plain_twin(
        mailboxes in prop::collection::vec((LOCAL, DOMAIN), 0..30),
        domains in prop::collection::vec(("(\\*\\.)?", DOMAIN), 0..3),
        asked in prop::collection::vec((LOCAL, DOMAIN), 1..60),
    ) {
        let mailboxes: Vec<_> = mailboxes.iter().map(|(l, d)| format!("{l}@{d}")).collect();
        let domains: Vec<_> = domains.iter().map(|(star, d)| format!("{star}{d}")).collect();
        let names: Vec<_> = domains.iter().map(String::as_str).collect();
        let accept = load(&names, Some(&mailboxes.join("\n")));
        let twin = Twin {
            mailboxes: mailboxes.iter().map(|mailbox| mailbox.to_lowercase()).collect(),
            domains: domains.iter().map(|domain| domain.to_lowercase()).collect(),
        };
        for (local, domain) in asked {
            let mailbox = format!("{local}@{domain}");
            prop_assert_eq!(accept.judge(&mailbox), twin.judge(&mailbox), "{}", mailbox);
        }
    }
}

#[test]
fn a_domain_is_named_or_not() {
    let domains = ["x.test", "*.y.test", "*"].map(str::to_owned).to_vec();
    let accept = Accept::load(&AcceptOptions { domains, ..AcceptOptions::default() }).unwrap();
    for (domain, named) in [
        ("x.test", true),
        ("X.test", true),
        ("a.y.test", true),
        ("y.test", false),
        ("a.x.test", false),
        ("other.test", false),
        ("no domain", false),
    ] {
        assert_eq!(accept.names_domain(domain), named, "{domain}");
    }
}
