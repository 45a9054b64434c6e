//! The parts that need no receiver; `tests/export/webhook.rs` has one.

use super::*;

fn headers(retry_after: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !retry_after.is_empty() {
        headers.insert("retry-after", retry_after.parse().unwrap());
    }
    headers
}

#[track_caller]
fn check(status: u16, expected: &str) {
    let status = StatusCode::from_u16(status).unwrap();
    let text = match judge(status, &HeaderMap::new(), UNIX_EPOCH) {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Retry(error) => format!("retry {}", error.class.name()),
        Outcome::Refused(error) => format!("refused {}", error.class.name()),
    };
    assert_eq!(text, expected, "{status}");
}

#[test]
fn each_status_has_its_meaning() {
    for status in [200, 201, 202, 204, 299] {
        check(status, "delivered");
    }
    for status in [300, 301, 302, 303, 304, 307, 308, 425, 500, 502, 504, 599, 100, 600] {
        check(status, "retry other");
    }
    for status in [401, 403, 407] {
        check(status, "retry auth");
    }
    check(404, "retry missing");
    check(408, "retry timeout");
    check(410, "retry gone");
    check(413, "refused too_large");
    for status in [429, 503] {
        check(status, "retry throttled");
    }
    for status in [400, 402, 405, 406, 409, 411, 412, 414, 415, 422, 451, 499] {
        check(status, "refused refused");
    }
}

#[test]
fn rfc9110_10_2_3_retry_after_in_seconds_or_as_a_date() {
    let now = httpdate::parse_http_date("Tue, 24 Nov 2026 12:00:00 GMT").unwrap();
    let wait = |value| retry_after(&headers(value), now);
    assert_eq!(wait("120"), Some(Duration::from_secs(120)));
    assert_eq!(wait(" 0 "), Some(Duration::ZERO));
    assert_eq!(wait("Tue, 24 Nov 2026 12:01:30 GMT"), Some(Duration::from_secs(90)));
    assert_eq!(wait("Tue, 24 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO), "gone by");
    for long in ["99999999", "99999999999999999999999999", "Tue, 24 Nov 2099 11:00:00 GMT"] {
        assert_eq!(wait(long), Some(RETRY_AFTER_MAX), "{long}");
    }
    for none in ["", "-5", "1.5", "soon", "+3"] {
        assert_eq!(wait(none), None, "{none}");
    }
}

/// Source: the example of the Standard Webhooks specification's reference libraries.
#[test]
fn a_signature_as_the_specification_has_it() {
    let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let body = br#"{"test": 2432232314}"#;
    assert_eq!(
        signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
}

#[test]
fn a_secret_is_base64_behind_whsec_and_plain_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        secret(&file)
    };
    assert_eq!(read("whsec_AAEC\n").unwrap(), [0, 1, 2]);
    assert_eq!(read("plain words\r\n").unwrap(), b"plain words");
    assert!(read("whsec_!!").unwrap_err().text.contains("base64"));
    assert!(read("\n").unwrap_err().text.ends_with("empty"));
    std::fs::remove_file(&file).unwrap();
    assert!(secret(&file).is_err());
}

#[test]
fn cloudevents_headers_are_percent_encoded() {
    let value = |text| header_value(text).unwrap().to_str().unwrap().to_owned();
    assert_eq!(value("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    assert_eq!(value("a\"b%c\r\nX: y"), "a%22b%25c%0D%0AX:%20y");
    assert_eq!(header_name("id").unwrap(), "ce-id");
    assert_eq!(header_name("mailrace_rcpt_to").unwrap(), "mailrace-rcpt-to");
}
