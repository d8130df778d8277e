//! The gRPC interface of Tributary: messages, clients and servers of `tributary.v1`.
//!
//! The sources are `tributary/v1/*.proto`; read `common.proto` first, it states the
//! conventions. Nothing is written by hand here.
//!
//! ```
//! use proto::tributary::v1::{ChannelState, PayWait, payments_client::PaymentsClient};
//!
//! assert_eq!(ChannelState::Active.as_str_name(), "CHANNEL_STATE_ACTIVE");
//! assert_eq!(PayWait::default(), PayWait::Unspecified);
//! # fn client(channel: tonic::transport::Channel) -> PaymentsClient<tonic::transport::Channel> {
//! PaymentsClient::new(channel)
//! # }
//! ```

/// The package tree of the interface.
pub mod tributary {
    /// Version 1 of the interface.
    #[allow(missing_docs, clippy::all, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("tributary.v1");
    }
}

pub use tributary::v1;

/// The interface as an encoded `google.protobuf.FileDescriptorSet`, without comments.
///
/// Serves gRPC reflection and the JSON output of the command line.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/tributary_descriptor.bin"));

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;
    use prost_types::field_descriptor_proto::Type;

    use super::FILE_DESCRIPTOR_SET;

    fn descriptors() -> FileDescriptorSet {
        FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote it")
    }

    /// The words of a name, split at underscores.
    fn has_word(name: &str, word: &str) -> bool {
        name.split('_').any(|part| part == word)
    }

    #[test]
    fn every_enum_begins_with_unspecified() {
        for file in descriptors().file {
            for item in file.enum_type {
                let zero = &item.value[0];
                assert_eq!(zero.number(), 0, "{}", item.name());
                assert!(zero.name().ends_with("_UNSPECIFIED"), "{}", zero.name());
            }
        }
    }

    #[test]
    fn every_amount_names_its_unit() {
        for file in descriptors().file {
            for message in file.message_type {
                for field in &message.field {
                    let name = field.name();
                    let at = format!("{}.{name}", message.name());
                    let number = !matches!(
                        field.r#type(),
                        Type::String | Type::Bytes | Type::Bool | Type::Message | Type::Enum
                    );
                    let money = ["amount", "fee", "balance", "capacity", "reserve", "push"]
                        .iter()
                        .any(|word| has_word(name, word));
                    let unit =
                        ["msat", "sat", "millionths"].iter().any(|unit| has_word(name, unit));
                    assert!(!(number && money) || unit, "{at} is money without a unit");
                    let time = ["timeout", "expiry", "time", "uptime", "created", "resolved"]
                        .iter()
                        .any(|word| has_word(name, word));
                    let unit = ["ms", "seconds", "delta"].iter().any(|unit| has_word(name, unit));
                    assert!(!(number && time) || unit, "{at} is a time without a unit");
                    let id =
                        ["id", "txid", "hash", "preimage"].iter().any(|word| name.ends_with(word));
                    assert!(
                        !id || field.r#type() == Type::Bytes || name == "short_channel_id",
                        "{at} is an id and not bytes"
                    );
                }
            }
        }
    }

    #[test]
    fn every_mutation_takes_an_idempotency_key() {
        // What begins with one of these only reads.
        let reads = ["Get", "List", "Watch", "Export", "Decode", "Lookup", "Estimate", "Subscribe"];
        let set = descriptors();
        let messages: Vec<_> = set.file.iter().flat_map(|f| &f.message_type).collect();
        let mut mutations = 0;
        // A tower's clients sign instead, and whatever they ask is harmless to repeat.
        let services = set.file.iter().flat_map(|f| &f.service);
        let services = services.filter(|service| service.name() != "Watchtower");
        for method in services.flat_map(|s| &s.method) {
            let input = method.input_type().trim_start_matches(".tributary.v1.");
            let request = messages.iter().find(|m| m.name() == input).expect("input is ours");
            let keyed = request.field.iter().any(|f| f.name() == "idempotency_key");
            let read = reads.iter().any(|verb| method.name().starts_with(verb));
            assert_ne!(keyed, read, "{}", method.name());
            mutations += usize::from(keyed);
        }
        assert_eq!(mutations, 40);
    }

    #[test]
    fn every_list_is_paged_and_no_field_number_is_missing() {
        for file in descriptors().file {
            for message in &file.message_type {
                let field = |name: &str| message.field.iter().any(|f| f.name() == name);
                if message.name().starts_with("List") && message.name().ends_with("Request") {
                    assert!(field("page_size") && field("page_token"), "{}", message.name());
                }
                if message.name().starts_with("List") && message.name().ends_with("Response") {
                    assert!(field("next_page_token"), "{}", message.name());
                }
                let mut numbers: Vec<_> = message.field.iter().map(|f| f.number()).collect();
                numbers.sort_unstable();
                let expected: Vec<_> = (1..=message.field.len() as i32).collect();
                assert_eq!(numbers, expected, "{}", message.name());
            }
        }
    }

    /// A public item without a comment is a question to every reader.
    #[test]
    fn every_line_of_the_interface_is_commented() {
        let sources = [
            include_str!("../tributary/v1/common.proto"),
            include_str!("../tributary/v1/node.proto"),
            include_str!("../tributary/v1/batches.proto"),
            include_str!("../tributary/v1/channels.proto"),
            include_str!("../tributary/v1/payments.proto"),
            include_str!("../tributary/v1/wallet.proto"),
            include_str!("../tributary/v1/events.proto"),
            include_str!("../tributary/v1/tower.proto"),
            include_str!("../tributary/v1/tokens.proto"),
            include_str!("../tributary/v1/webhooks.proto"),
            include_str!("../tributary/v1/payouts.proto"),
        ];
        let mut items = 0;
        for source in sources {
            let mut before = "";
            for line in source.lines().map(str::trim) {
                let item = ["message ", "enum ", "service ", "rpc ", "oneof "]
                    .iter()
                    .any(|word| line.starts_with(word))
                    || (line.ends_with(';') && line.contains(" = "));
                if item && !line.starts_with("//") && !line.starts_with("syntax") {
                    assert!(before.starts_with("//"), "no comment above: {line}");
                    items += 1;
                }
                before = line;
            }
        }
        assert!(items > 300, "only {items} items were looked at");
    }
}
