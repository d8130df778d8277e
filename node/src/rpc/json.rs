//! Every message of the interface as JSON, by its descriptor.
//!
//! Keys are the field names of the interface, so units stay in them. Ids are hex, enums
//! their names without the prefix, amounts integers. An absent `optional` is null, the
//! members of a `oneof` that are not set are left out. A short channel id is written
//! `block x transaction x output`, as everywhere else. The command line prints it, and webhooks
//! carry it.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value};

/// Deepest nesting of messages; the interface itself has 4.
const DEPTH_MAX: usize = 16;

/// The messages and enums of the interface by full name, with the leading dot.
struct Interface {
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
}

static INTERFACE: LazyLock<Interface> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)
        .expect("the build script wrote the descriptors");
    let mut interface = Interface { messages: HashMap::new(), enums: HashMap::new() };
    for file in set.file {
        let package = file.package().to_owned();
        for message in file.message_type {
            let name = format!(".{package}.{}", message.name());
            interface.messages.insert(name, message);
        }
        for item in file.enum_type {
            let name = format!(".{package}.{}", item.name());
            interface.enums.insert(name, item);
        }
    }
    interface
});

/// A message that is not as its descriptor says: a mistake of this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write {name} as JSON: {detail}")]
pub struct JsonError {
    name: String,
    detail: String,
}

/// Turns a message into a JSON document.
///
/// # Errors
///
/// [`JsonError`] names the message.
pub fn of<M: Name>(message: &M) -> Result<Value, JsonError> {
    let name = format!(".{}", M::full_name());
    object(&name, &message.encode_to_vec(), DEPTH_MAX).map_err(|detail| JsonError { name, detail })
}

/// One field as it lies on the wire.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn object(name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let wrong = || format!("{name} is not as the interface says");
    let descriptor = INTERFACE.messages.get(name).filter(|_| depth > 0).ok_or_else(wrong)?;
    let mut raws: HashMap<i32, Vec<Raw<'_>>> = HashMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(|error| error.to_string())?;
        let raw = match wire_type {
            WireType::Varint => Raw::Number(varint(&mut rest)?),
            WireType::LengthDelimited => {
                let len = usize::try_from(varint(&mut rest)?).map_err(|_| wrong())?;
                let (value, after) = rest.split_at_checked(len).ok_or_else(wrong)?;
                rest = after;
                Raw::Bytes(value)
            }
            // The interface has no fixed-width numbers and no groups; a test holds that.
            _ => return Err(wrong()),
        };
        raws.entry(tag as i32).or_default().push(raw);
    }
    let mut map = Map::new();
    for field in &descriptor.field {
        let found = raws.remove(&field.number()).unwrap_or_default();
        let value = if field.label() == Label::Repeated {
            let items = repeated(field, &found)?;
            items
                .into_iter()
                .map(|raw| value(field, raw, depth))
                .collect::<Result<Vec<_>, _>>()
                .map(Value::Array)?
        } else {
            match found.last() {
                Some(raw) => value(field, *raw, depth)?,
                None if field.proto3_optional() => Value::Null,
                None if field.oneof_index.is_some() => continue,
                None => match field.r#type() {
                    Type::Message => Value::Null,
                    Type::String | Type::Bytes => value(field, Raw::Bytes(&[]), depth)?,
                    _ => value(field, Raw::Number(0), depth)?,
                },
            }
        };
        map.insert(field.name().to_owned(), value);
    }
    Ok(Value::Object(map))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    decode_varint(bytes).map_err(|error| error.to_string())
}

/// Numbers may come packed into one run of bytes.
fn repeated<'a>(field: &FieldDescriptorProto, found: &[Raw<'a>]) -> Result<Vec<Raw<'a>>, String> {
    if matches!(field.r#type(), Type::String | Type::Bytes | Type::Message) {
        return Ok(found.to_vec());
    }
    let mut items = Vec::new();
    for raw in found {
        match *raw {
            Raw::Number(_) => items.push(*raw),
            Raw::Bytes(mut packed) => {
                while !packed.is_empty() {
                    items.push(Raw::Number(varint(&mut packed)?));
                }
            }
        }
    }
    Ok(items)
}

fn value(field: &FieldDescriptorProto, raw: Raw<'_>, depth: usize) -> Result<Value, String> {
    let wrong = || format!("{} is not as the interface says", field.name());
    Ok(match (field.r#type(), raw) {
        (Type::Message, Raw::Bytes(bytes)) => object(field.type_name(), bytes, depth - 1)?,
        (Type::String, Raw::Bytes(bytes)) => String::from_utf8_lossy(bytes).into(),
        (Type::Bytes, Raw::Bytes(bytes)) => hex::encode(bytes).into(),
        (Type::Bool, Raw::Number(number)) => (number != 0).into(),
        (Type::Uint64, Raw::Number(number)) if field.name() == "short_channel_id" => {
            short_channel_id(number).into()
        }
        (Type::Uint64 | Type::Uint32, Raw::Number(number)) => number.into(),
        (Type::Enum, Raw::Number(number)) => {
            let descriptor = INTERFACE.enums.get(field.type_name()).ok_or_else(wrong)?;
            enum_name(descriptor, number as i32)
        }
        _ => return Err(wrong()),
    })
}

/// The name of an enum's value without the enum's own; the number if it is newer than this
/// program.
fn enum_name(descriptor: &EnumDescriptorProto, number: i32) -> Value {
    let zero = descriptor.value.first().map_or("", |value| value.name());
    let prefix = zero.strip_suffix("UNSPECIFIED").unwrap_or_default();
    descriptor
        .value
        .iter()
        .find(|value| value.number() == number)
        .map(|value| value.name().trim_start_matches(prefix).into())
        .unwrap_or_else(|| number.into())
}

/// Writes a short channel id as people read it.
pub fn short_channel_id(id: u64) -> String {
    format!("{}x{}x{}", id >> 40, (id >> 16) & 0xff_ffff, id & 0xffff)
}

#[cfg(test)]
mod tests {
    use proto::v1::{
        Channel, ChannelState, Event, ListChannelsResponse, NodeInfo, Outpoint, PayRequest,
        Payment, PaymentEvent, PaymentState, SubscribeRequest, event, pay_request,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_stable_and_absence_is_null() {
        let empty = of(&Payment::default()).unwrap();
        let full = of(&Payment {
            payment_id: vec![1; 16],
            payment_hash: Some(vec![0xab; 32]),
            state: PaymentState::Succeeded as i32,
            amount_msat: 2_100_000_000_000_000_000,
            fee_msat: Some(0),
            ..Payment::default()
        })
        .unwrap();
        let keys = |value: &Value| {
            let object = value.as_object().unwrap();
            object.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&empty), keys(&full));
        assert_eq!(empty["fee_msat"], Value::Null);
        assert_eq!(empty["amount_msat"], 0);
        assert_eq!(empty["state"], "UNSPECIFIED");
        assert_eq!(empty["custom_records"], json!([]));
        assert_eq!(full["fee_msat"], 0);
        assert_eq!(full["state"], "SUCCEEDED");
        assert_eq!(full["amount_msat"], 2_100_000_000_000_000_000_u64);
        assert_eq!(full["payment_id"], "01".repeat(16));
        assert_eq!(full["payment_hash"], "ab".repeat(32));
    }

    #[test]
    fn messages_nest_and_lists_keep_their_order() {
        let channel = |number: u8| Channel {
            record_id: vec![number; 16],
            funding_outpoint: Some(Outpoint { txid: vec![number; 32], output_index: 1 }),
            short_channel_id: Some((800_000 << 40) | (12 << 16) | 3),
            state: ChannelState::AwaitingConfirmation as i32,
            ..Channel::default()
        };
        let list = of(&ListChannelsResponse {
            channels: vec![channel(1), channel(2)],
            next_page_token: None,
        })
        .unwrap();
        assert_eq!(list["channels"][1]["record_id"], "02".repeat(16));
        assert_eq!(list["channels"][0]["funding_outpoint"]["output_index"], 1);
        assert_eq!(list["channels"][0]["short_channel_id"], "800000x12x3");
        assert_eq!(list["channels"][0]["state"], "AWAITING_CONFIRMATION");
        assert_eq!(list["channels"][0]["closing"], Value::Null);
        assert_eq!(list["next_page_token"], Value::Null);
        let info = of(&NodeInfo::default()).unwrap();
        assert_eq!(info["chain"], Value::Null);
    }

    #[test]
    fn only_the_member_of_a_oneof_that_is_set_is_there() {
        let event = of(&Event {
            sequence: 7,
            unix_ms: 8,
            kind: Some(event::Kind::Payment(PaymentEvent::default())),
        })
        .unwrap();
        let keys: Vec<_> = event.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
        assert_eq!(event["payment"]["fee_msat"], Value::Null);
        let request = of(&PayRequest {
            target: Some(pay_request::Target::Offer("lno1".to_owned())),
            ..PayRequest::default()
        })
        .unwrap();
        assert_eq!(request["offer"], "lno1");
        assert!(request.get("bolt11_invoice").is_none());
    }

    #[test]
    fn what_is_newer_than_this_program_is_shown_as_a_number() {
        let request =
            of(&SubscribeRequest { after_sequence: Some(0), kinds: vec![1, 99] }).unwrap();
        assert_eq!(request, json!({"after_sequence": 0, "kinds": ["PAYMENT", 99]}));
    }

    #[test]
    fn every_type_of_the_interface_is_known_here() {
        for (name, message) in &INTERFACE.messages {
            for field in &message.field {
                let known = match field.r#type() {
                    Type::Message => INTERFACE.messages.contains_key(field.type_name()),
                    Type::Enum => INTERFACE.enums.contains_key(field.type_name()),
                    other => matches!(
                        other,
                        Type::String | Type::Bytes | Type::Bool | Type::Uint32 | Type::Uint64
                    ),
                };
                assert!(known, "{name}.{}", field.name());
            }
            // And the empty message of each kind can be written.
            object(name, &[], DEPTH_MAX).unwrap();
        }
        assert!(INTERFACE.messages.len() > 60);
    }
}
