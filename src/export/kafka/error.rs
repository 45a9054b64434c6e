//! What Kafka's errors mean here.

use rskafka::{
    BackoffError,
    client::error::{Error, ProtocolError, RequestError},
};

use crate::{ErrorClass, SinkError};

/// An error of the client as one of a sink.
pub(super) fn classify(error: &Error) -> SinkError {
    match error {
        // The client tries once and then says that its time is over: the cause is what counts.
        Error::RetryFailed(BackoffError::DeadlineExceded { source, .. }) => {
            match source.downcast_ref::<Error>() {
                Some(cause) => classify(cause),
                None => SinkError::new(ErrorClass::Connect, source),
            }
        }
        Error::Connection(cause) => {
            let text = cause.to_string();
            // The client tells apart refused credentials and an unreachable broker in words only
            // once it has tried several brokers.
            let auth = ["Sasl", "SASL", "sasl"].iter().any(|word| text.contains(word));
            let class = if auth { ErrorClass::Auth } else { ErrorClass::Connect };
            let text = text.replace("all retries failed: Retry exceeded deadline. Source: ", "");
            SinkError::new(class, text)
        }
        Error::Request(RequestError::NoVersionMatch { .. }) | Error::InvalidResponse(_) => {
            SinkError::new(ErrorClass::Other, error)
        }
        Error::Request(_) => SinkError::new(ErrorClass::Connect, error),
        Error::ServerError { protocol_error, error_message, .. } => {
            let message = error_message.as_deref().map(|text| format!(": {text}"));
            let text =
                format!("the broker says {}{}", name(*protocol_error), message.unwrap_or_default());
            SinkError::new(class(*protocol_error), text)
        }
        Error::Timeout => SinkError::new(ErrorClass::Timeout, error),
        _ => SinkError::new(ErrorClass::Other, error),
    }
}

/// A code's name as Kafka's documentation has it: `UNKNOWN_TOPIC_OR_PARTITION`.
fn name(error: ProtocolError) -> String {
    if let ProtocolError::Unknown(number) = error {
        return format!("error code {number}");
    }
    let mut name = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn class(error: ProtocolError) -> ErrorClass {
    match error {
        ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge => ErrorClass::TooLarge,
        ProtocolError::UnknownTopicOrPartition
        | ProtocolError::InvalidTopicException
        | ProtocolError::UnknownTopicId => ErrorClass::Missing,
        ProtocolError::TopicAuthorizationFailed
        | ProtocolError::ClusterAuthorizationFailed
        | ProtocolError::SaslAuthenticationFailed
        | ProtocolError::UnsupportedSaslMechanism
        | ProtocolError::IllegalSaslState => ErrorClass::Auth,
        ProtocolError::RequestTimedOut => ErrorClass::Timeout,
        ProtocolError::ThrottlingQuotaExceeded
        | ProtocolError::NotEnoughReplicas
        | ProtocolError::NotEnoughReplicasAfterAppend
        | ProtocolError::KafkaStorageError => ErrorClass::Throttled,
        // A leader moves, or its broker is away.
        ProtocolError::LeaderNotAvailable
        | ProtocolError::NotLeaderOrFollower
        | ProtocolError::BrokerNotAvailable
        | ProtocolError::ReplicaNotAvailable
        | ProtocolError::FencedLeaderEpoch
        | ProtocolError::UnknownLeaderEpoch
        | ProtocolError::NetworkException => ErrorClass::Connect,
        // Of the record itself: a schema, or a timestamp the topic does not allow.
        ProtocolError::InvalidRecord | ProtocolError::InvalidTimestamp => ErrorClass::Refused,
        _ => ErrorClass::Other,
    }
}
