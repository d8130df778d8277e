//! JSON read as a message of the interface, by its descriptor: the way back of `json`.
//!
//! Whatever `json` writes is read as it was. Besides, a number may be written as text, an enum's
//! value with its prefix or as its number, and hex in capitals. What nobody can have meant is
//! refused: a key twice, a key the message has not, two members of a `oneof`.

use std::collections::HashMap;
use std::fmt;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{DEPTH_MAX, INTERFACE, short_name};

/// Why a document is not the message asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::rpc) enum ReadError {
    /// It is no JSON, or has a key twice.
    #[error("the body is no JSON document: {0}")]
    Syntax(String),
    /// A field is wrong.
    #[error("{path} {problem}")]
    Field {
        /// The field, such as `filter.states[1]`; `the request` for the document itself.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads a document. Unlike `serde_json` alone, it refuses a key that comes twice.
///
/// # Errors
///
/// [`ReadError::Syntax`] says where.
pub(in crate::rpc) fn parse(text: &[u8]) -> Result<Value, ReadError> {
    let Strict(value) =
        serde_json::from_slice(text).map_err(|error| ReadError::Syntax(error.to_string()))?;
    Ok(value)
}

/// Encodes a document as the message `name` (full, with the leading dot).
///
/// # Errors
///
/// [`ReadError::Field`] names the field and what it takes.
pub(in crate::rpc) fn to_wire(name: &str, document: &Value) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    let place = Place { path: String::new(), depth: DEPTH_MAX };
    object(name, document, &place, &mut out)?;
    Ok(out)
}

/// A value whose objects have each key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values).map(Strict)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if all.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} comes twice")));
            }
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

/// Where in a document something is.
struct Place {
    path: String,
    depth: usize,
}

impl Place {
    fn field(&self, name: &str) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Self { path, depth: self.depth - 1 }
    }

    fn item(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), depth: self.depth }
    }

    fn wrong(&self, problem: impl Into<String>) -> ReadError {
        let path = if self.path.is_empty() { "the request" } else { &self.path };
        ReadError::Field { path: path.to_owned(), problem: problem.into() }
    }
}

fn object(name: &str, value: &Value, place: &Place, out: &mut Vec<u8>) -> Result<(), ReadError> {
    let descriptor = INTERFACE.messages.get(name).filter(|_| place.depth > 0);
    let descriptor = descriptor.ok_or_else(|| place.wrong("nests too deep"))?;
    let Some(map) = value.as_object() else {
        return Err(place.wrong("must be a JSON object"));
    };
    if let Some(unknown) = map.keys().find(|key| known_field(descriptor, key).is_none()) {
        return Err(place.field(unknown).wrong(unknown_problem(descriptor, unknown)));
    }
    let mut members: HashMap<i32, &str> = HashMap::new();
    for field in &descriptor.field {
        let Some(value) = map.get(field.name()).filter(|value| !value.is_null()) else {
            continue;
        };
        let place = place.field(field.name());
        if let Some(index) = field.oneof_index.filter(|_| !field.proto3_optional())
            && let Some(other) = members.insert(index, field.name())
        {
            return Err(place.wrong(format!("cannot be given together with {other}")));
        }
        if field.label() != Label::Repeated {
            one(field, value, &place, out)?;
            continue;
        }
        let Some(items) = value.as_array() else {
            return Err(place.wrong("must be a JSON array"));
        };
        for (index, item) in items.iter().enumerate() {
            one(field, item, &place.item(index), out)?;
        }
    }
    Ok(())
}

fn known_field<'a>(descriptor: &'a DescriptorProto, key: &str) -> Option<&'a FieldDescriptorProto> {
    descriptor.field.iter().find(|field| field.name() == key)
}

/// Says what the message has instead of `key`.
fn unknown_problem(descriptor: &DescriptorProto, key: &str) -> String {
    let names: Vec<&str> = descriptor.field.iter().map(FieldDescriptorProto::name).collect();
    let near = names.iter().max_by(|a, b| {
        strsim::jaro(a, key).partial_cmp(&strsim::jaro(b, key)).unwrap_or(std::cmp::Ordering::Equal)
    });
    match near {
        None => format!("is not known: {} has no fields", descriptor.name()),
        Some(near) if strsim::jaro(near, key) > 0.7 => {
            format!("is not known to {}; did you mean {near}?", descriptor.name())
        }
        Some(_) => format!("is not known: {} has {}", descriptor.name(), names.join(", ")),
    }
}

/// Appends one value of a field.
fn one(
    field: &FieldDescriptorProto,
    value: &Value,
    place: &Place,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let tag = u32::try_from(field.number()).map_err(|_| place.wrong("has no number"))?;
    let bytes = match field.r#type() {
        Type::Message => {
            let mut inner = Vec::new();
            object(field.type_name(), value, place, &mut inner)?;
            inner
        }
        Type::String => text(value, place)?.as_bytes().to_vec(),
        Type::Bytes => {
            let problem = "must be hex, two digits a byte";
            hex::decode(text(value, place)?).map_err(|_| place.wrong(problem))?
        }
        _ => {
            let number = number(field, value, place)?;
            encode_key(tag, WireType::Varint, out);
            encode_varint(number, out);
            return Ok(());
        }
    };
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(&bytes);
    Ok(())
}

fn text<'a>(value: &'a Value, place: &Place) -> Result<&'a str, ReadError> {
    value.as_str().ok_or_else(|| place.wrong("must be a JSON string"))
}

fn number(field: &FieldDescriptorProto, value: &Value, place: &Place) -> Result<u64, ReadError> {
    match field.r#type() {
        Type::Bool => {
            let value = value.as_bool().ok_or_else(|| place.wrong("must be true or false"))?;
            Ok(value.into())
        }
        Type::Enum => {
            let descriptor = INTERFACE.enums.get(field.type_name());
            let descriptor = descriptor.ok_or_else(|| place.wrong("is of no known type"))?;
            let found = match value.as_str() {
                Some(name) => descriptor
                    .value
                    .iter()
                    .find(|one| one.name() == name || short_name(descriptor, one.name()) == name)
                    .map(|one| i64::from(one.number())),
                None => value.as_i64(),
            };
            let found = found.and_then(|number| u64::try_from(number).ok());
            found.filter(|number| *number <= i32::MAX as u64).ok_or_else(|| {
                let names = descriptor.value.iter().skip(1);
                let names: Vec<&str> =
                    names.map(|one| short_name(descriptor, one.name())).collect();
                place.wrong(format!("must be one of {}", names.join(", ")))
            })
        }
        Type::Uint64 if field.name() == "short_channel_id" => {
            let read = value.as_str().and_then(short_channel_id).or_else(|| integer(value));
            read.ok_or_else(|| place.wrong("must be block x transaction x output, as 800000x1x0"))
        }
        Type::Uint64 => {
            let problem = "must be an integer from 0 to 18446744073709551615";
            integer(value).ok_or_else(|| place.wrong(problem))
        }
        Type::Uint32 => integer(value)
            .filter(|number| *number <= u32::MAX.into())
            .ok_or_else(|| place.wrong("must be an integer from 0 to 4294967295")),
        _ => Err(place.wrong("is of no known type")),
    }
}

/// A number, or one as text: some languages have no larger ones than 2^53.
fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        value => value.as_u64(),
    }
}

fn short_channel_id(text: &str) -> Option<u64> {
    let mut parts = text.split('x').map(|part| integer(&Value::from(part)));
    let (block, transaction, output) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = block < 1 << 24 && transaction < 1 << 24 && output < 1 << 16;
    (fits && parts.next().is_none()).then_some((block << 40) | (transaction << 16) | output)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Name;
    use proto::v1::{
        self, CreateInvoiceRequest, CustomRecord, Keysend, ListPaymentsRequest, PayRequest,
        PaymentFilter, SubscribeRequest, create_invoice_request, pay_request,
    };
    use serde_json::json;

    use super::*;

    fn read<M: Name + Default>(document: Value) -> Result<M, ReadError> {
        let wire = to_wire(&format!(".{}", M::full_name()), &document)?;
        Ok(M::decode(wire.as_slice()).unwrap())
    }

    fn problem<M: Name + Default + std::fmt::Debug>(document: Value) -> String {
        read::<M>(document).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let pay = PayRequest {
            idempotency_key: "a key".to_owned(),
            amount_msat: Some(0),
            max_fee_msat: Some(u64::MAX),
            wait: v1::PayWait::Wait.into(),
            target: Some(pay_request::Target::Keysend(Keysend {
                node_id: vec![2; 33],
                custom_records: vec![
                    CustomRecord { r#type: 65_536, value: vec![] },
                    CustomRecord { r#type: 65_537, value: vec![0xff] },
                ],
            })),
            ..PayRequest::default()
        };
        assert_eq!(read::<PayRequest>(super::super::of(&pay).unwrap()).unwrap(), pay);
        let hop = v1::RouteHop { short_channel_id: (800_000 << 40) | 65_536, ..Default::default() };
        assert_eq!(read::<v1::RouteHop>(super::super::of(&hop).unwrap()).unwrap(), hop);
        let subscribe = SubscribeRequest { after_sequence: None, kinds: vec![1, 99] };
        let written = super::super::of(&subscribe).unwrap();
        assert_eq!(read::<SubscribeRequest>(written).unwrap(), subscribe);
    }

    #[test]
    fn what_other_writers_write_is_read_too() {
        let list: ListPaymentsRequest = read(json!({
            "filter": {
                "direction": "PAYMENT_DIRECTION_OUTBOUND",
                "states": ["SUCCEEDED", 5],
                "created_from_unix_ms": "18446744073709551615",
                "payment_hash": "AB".repeat(32),
            },
            "page_size": null,
        }))
        .unwrap();
        let expected = PaymentFilter {
            direction: Some(v1::PaymentDirection::Outbound.into()),
            states: vec![v1::PaymentState::Succeeded.into(), 5],
            created_from_unix_ms: Some(u64::MAX),
            payment_hash: Some(vec![0xab; 32]),
            ..PaymentFilter::default()
        };
        assert_eq!(list, ListPaymentsRequest { filter: Some(expected), ..Default::default() });
    }

    #[test]
    fn what_nobody_can_have_meant_is_refused_by_name() {
        let twice = parse(br#"{"amount_msat": 1, "amount_msat": 1000}"#).unwrap_err().to_string();
        assert!(twice.contains("\"amount_msat\" comes twice"), "{twice}");
        assert!(parse(b"{").is_err() && parse(b"{} {}").is_err() && parse(b"\xff").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err(), "no stack is that deep");
        let cases: [(Value, &str); 12] = [
            (json!([]), "the request must be a JSON object"),
            (
                json!({"amount_mast": 1}),
                "amount_mast is not known to PayRequest; did you mean amount_msat?",
            ),
            (json!({"zzz": 1}), "zzz is not known: PayRequest has idempotency_key, "),
            (json!({"amount_msat": -1}), "amount_msat must be an integer from 0 to"),
            (json!({"amount_msat": 1.5}), "amount_msat must be an integer"),
            (json!({"amount_msat": 1e3}), "amount_msat must be an integer"),
            (json!({"amount_msat": "+1"}), "amount_msat must be an integer"),
            (json!({"timeout_seconds": 4_294_967_296_u64}), "timeout_seconds must be an integer"),
            (json!({"offer": "a", "bolt11_invoice": "b"}), "offer cannot be given together with"),
            (json!({"wait": "AT_ONCE"}), "wait must be one of RETURN_AT_ONCE, WAIT"),
            (json!({"keysend": {"node_id": "abc"}}), "keysend.node_id must be hex"),
            (
                json!({"keysend": {"custom_records": [{"type": 1}, {"type": true}]}}),
                "keysend.custom_records[1].type must be an integer",
            ),
        ];
        for (document, expected) in cases {
            let problem = problem::<PayRequest>(document);
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn short_channel_ids_have_their_ranges() {
        assert_eq!(short_channel_id("800000x1x2"), Some((800_000 << 40) | (1 << 16) | 2));
        for wrong in ["", "1x2", "1x2x3x4", "1x2x65536", "16777216x0x0", "ax1x1", "1x+1x1"] {
            assert_eq!(short_channel_id(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_request_goes_there_and_back(
            key in ".*",
            amount in any::<Option<u64>>(),
            hash in any::<Option<Vec<u8>>>(),
            about in any::<Option<Result<String, Vec<u8>>>>(),
        ) {
            use create_invoice_request::About;
            let about = about.map(|about| match about {
                Ok(text) => About::Description(text),
                Err(hash) => About::DescriptionHash(hash),
            });
            let request = CreateInvoiceRequest {
                idempotency_key: key,
                amount_msat: amount,
                payment_hash: hash,
                about,
                ..CreateInvoiceRequest::default()
            };
            let text = serde_json::to_vec(&super::super::of(&request).unwrap()).unwrap();
            let back: CreateInvoiceRequest = read(parse(&text).unwrap()).unwrap();
            prop_assert_eq!(back, request);
        }
    }
}
