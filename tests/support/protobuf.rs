//! Reads protobuf as a consumer would: by the published `.proto`, which is compiled for it.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

/// The descriptors of it.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema");
    let files = protox::compile(["mailrace.v1.proto"], [root]).expect("a valid .proto");
    DescriptorPool::from_file_descriptor_set(files).expect("complete")
});

/// A `MessageReceived` as JSON, its fields by their names.
pub fn message(octets: &[u8]) -> Value {
    let descriptor = POOL.get_message_by_name("mailrace.v1.MessageReceived").expect("published");
    let message = DynamicMessage::decode(descriptor, octets).expect("such a message");
    let unknown = message.unknown_fields().count();
    assert_eq!(unknown, 0, "fields that the .proto does not have");
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).expect("as JSON")
}
