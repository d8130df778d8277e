//! A query as the document it stands for: `filter.states=HELD&page_size=10`.
//!
//! A dot goes into a message; a key that comes again is the next element of a list.

use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::{Map, Value};

use super::super::json;

/// Deepest path of a key.
const DEPTH_MAX: usize = 8;

/// Reads a query as a document of the message `name`. What a value must be is checked by the
/// reader of documents; here it is brought into its place.
///
/// # Errors
///
/// A sentence that names the key.
pub(super) fn document(name: &str, query: &str) -> Result<Value, String> {
    let mut document = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decoded(key)?, decoded(value)?);
        place(&mut document, name, &key, &value)?;
    }
    Ok(Value::Object(document))
}

fn place(
    document: &mut Map<String, Value>,
    name: &str,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let path: Vec<&str> = key.split('.').collect();
    let Some((last, way)) = path.split_last().filter(|_| path.len() <= DEPTH_MAX) else {
        return Err(format!("the key {key:?} has more than {DEPTH_MAX} parts"));
    };
    let (mut map, mut name) = (document, name);
    for step in way {
        let inner = field(name, step).filter(|field| field.r#type() == Type::Message);
        let inner = inner.filter(|field| field.label() != Label::Repeated);
        let Some(inner) = inner else {
            return Err(format!("the key {key:?} goes into {step:?}, which is no message"));
        };
        name = inner.type_name();
        let entry = map.entry(*step).or_insert_with(|| Value::Object(Map::new()));
        map = entry.as_object_mut().ok_or_else(|| format!("the key {step:?} comes twice"))?;
    }
    let found = field(name, last);
    let read = match found.map(FieldDescriptorProto::r#type) {
        Some(Type::Bool) => match value {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return Err(format!("{key} must be true or false")),
        },
        Some(Type::Message) => {
            return Err(format!("{key} is a message; name its fields as {key}.field, or use POST"));
        }
        Some(Type::Enum) => value.parse::<i32>().map_or_else(|_| value.into(), Value::from),
        // The reader says what a message has instead of an unknown key.
        _ => value.into(),
    };
    if found.is_some_and(|field| field.label() == Label::Repeated) {
        let items = map.entry(*last).or_insert_with(|| Value::Array(Vec::new()));
        let items = items.as_array_mut().ok_or_else(|| format!("the key {key:?} comes twice"))?;
        items.push(read);
        return Ok(());
    }
    match map.insert((*last).to_owned(), read) {
        None => Ok(()),
        Some(_) => Err(format!("the key {key:?} comes twice")),
    }
}

fn field(name: &str, key: &str) -> Option<&'static FieldDescriptorProto> {
    json::fields(name).iter().find(|field| field.name() == key)
}

/// Takes `%41` and `+` back.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("the query has {text:?}, which is not encoded as a query is");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).map_err(|_| wrong())?;
                bytes.extend(byte);
                rest = after;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIST: &str = ".tributary.v1.ListPaymentsRequest";

    #[test]
    fn keys_go_into_messages_and_lists() {
        let query = "filter.states=HELD&filter.states=5&page_size=10&&filter.direction=INBOUND";
        let expected = json!({
            "filter": {"states": ["HELD", 5], "direction": "INBOUND"},
            "page_size": "10",
        });
        assert_eq!(document(LIST, query).unwrap(), expected);
        assert_eq!(document(LIST, "").unwrap(), json!({}));
        let text = document(".tributary.v1.DecodeRequest", "text=a%2Bb+c%C3%bc").unwrap();
        assert_eq!(text, json!({"text": "a+b cü"}));
    }

    #[test]
    fn keys_that_have_no_place_are_refused() {
        for query in [
            "page_size=1&page_size=2",
            "filter=x",
            "page_size.x=1",
            "filter.states.x=1",
            "page_token=%4",
            "page_token=%zz",
            "page_token=%ff",
            "a.b.c.d.e.f.g.h.i=1",
        ] {
            assert!(document(LIST, query).is_err(), "{query}");
        }
        assert_eq!(document(LIST, "unknown=1").unwrap(), json!({"unknown": "1"}));
    }
}
