//! What a reply means for a recipient, or for the connection.

use super::super::{ErrorClass, SinkError};
use mailrace_smtp::client::Reply;

/// What became of one recipient in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// 2yz after the mail data: the server has it (D11).
    Delivered,
    /// Not now, or nobody knows: it is sent again.
    Deferred(SinkError),
    /// 5yz: never.
    Refused(SinkError),
}

/// The command a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// MAIL
    Mail,
    /// RCPT
    Rcpt,
    /// DATA, BDAT and the end of mail data
    Content,
}

/// What a 4yz or 5yz reply means for the recipients it is about.
pub(super) fn fate(reply: &Reply, answered: Answered) -> Fate {
    let error = |class| SinkError::new(class, reply.text());
    if reply.class() != 5 {
        return Fate::Deferred(error(ErrorClass::Throttled));
    }
    match reply.code {
        // RFC 5321 §4.5.3.1.10: 552 to RCPT is an old server's "too many recipients", so temporary;
        // unless its enhanced code tells otherwise (5.2.2 mailbox full, 5.3.4 too large).
        552 if answered == Answered::Rcpt && matches!(reply.enhanced(), None | Some((5, 3))) => {
            Fate::Deferred(error(ErrorClass::Throttled))
        }
        // RFC 4954 §6, RFC 3207 §4: about who we are, not about the message.
        530 | 534 | 535 | 538 => Fate::Deferred(error(ErrorClass::Auth)),
        // Bad sequence of commands: we are out of step, and the message is not to blame.
        503 => Fate::Deferred(error(ErrorClass::Other)),
        _ => match (reply.code, reply.enhanced()) {
            (_, Some((2 | 3, 3 | 4))) | (552, None) => Fate::Refused(error(ErrorClass::TooLarge)),
            _ => Fate::Refused(error(ErrorClass::Refused)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: u16, text: &str, answered: Answered, expected: &str) {
        let reply = Reply { code, lines: vec![text.to_owned()] };
        let text = match fate(&reply, answered) {
            Fate::Delivered => "delivered".to_owned(),
            Fate::Deferred(error) => format!("deferred {}", error.class.name()),
            Fate::Refused(error) => format!("refused {}", error.class.name()),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn rfc5321_4_2_1_4yz_is_tried_again_and_5yz_is_not() {
        for answered in [Answered::Mail, Answered::Rcpt, Answered::Content] {
            check(421, "4.3.2 closing", answered, "deferred throttled");
            check(450, "", answered, "deferred throttled");
            check(550, "5.1.1 unknown", answered, "refused refused");
            check(554, "", answered, "refused refused");
            check(501, "", answered, "refused refused");
            check(530, "5.7.0 authenticate first", answered, "deferred auth");
            check(503, "", answered, "deferred other");
            check(552, "5.3.4 too large", answered, "refused too_large");
            check(552, "5.2.2 full", answered, "refused refused");
        }
    }

    #[test]
    fn rfc5321_4_5_3_1_10_552_to_rcpt_is_temporary() {
        check(552, "too many recipients", Answered::Rcpt, "deferred throttled");
        check(552, "5.5.3 too many recipients", Answered::Rcpt, "deferred throttled");
        check(552, "too much mail data", Answered::Content, "refused too_large");
    }
}
