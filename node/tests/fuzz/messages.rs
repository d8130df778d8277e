//! Requests made from the descriptors: random, at the edges, and of what the node said before.

use std::collections::HashMap;
use std::sync::Mutex;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value};

/// Stops the node: what it does then is tested elsewhere.
const LEFT_OUT: [&str; 1] = ["tributary.v1.Node/Stop"];
/// Most things remembered of each sort.
const REMEMBERED: usize = 512;
/// Keys are few, so that they come again with other bodies.
const KEYS: u32 = 200;

/// One method of the interface.
#[derive(Debug, Clone)]
pub struct Method {
    /// `tributary.v1.Payments/Pay`.
    pub name: String,
    pub input: String,
    pub streams: bool,
    pub mutates: bool,
}

impl Method {
    /// `/v1/Payments/Pay`.
    pub fn rest_path(&self) -> String {
        self.name.replace("tributary.v1.", "/v1/")
    }
}

/// The interface, and what the node has said.
pub struct Interface {
    messages: HashMap<String, DescriptorProto>,
    pub methods: Vec<Method>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    ids: Vec<Vec<u8>>,
    texts: Vec<String>,
}

impl Interface {
    pub fn new() -> Self {
        let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut messages = HashMap::new();
        for file in &set.file {
            for message in &file.message_type {
                messages.insert(format!(".{}.{}", file.package(), message.name()), message.clone());
            }
        }
        let mut methods = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let input = method.input_type().to_owned();
                    let fields = &messages[&input].field;
                    methods.push(Method {
                        name: format!("{}.{}/{}", file.package(), service.name(), method.name()),
                        streams: method.server_streaming(),
                        mutates: fields.iter().any(|field| field.name() == "idempotency_key"),
                        input,
                    });
                }
            }
        }
        methods.retain(|method| !LEFT_OUT.contains(&method.name.as_str()));
        Self { messages, methods, heard: Mutex::default() }
    }

    /// Remembers ids and texts of an answer, to ask with them.
    pub fn hear(&self, value: &Value, rng: &mut StdRng) {
        match value {
            Value::Object(map) => map.values().for_each(|value| self.hear(value, rng)),
            Value::Array(items) => items.iter().for_each(|value| self.hear(value, rng)),
            Value::String(text) if !text.is_empty() => {
                let mut heard = self.heard.lock().unwrap();
                match hex::decode(text) {
                    Ok(id) => keep(&mut heard.ids, id, rng),
                    Err(_) => keep(&mut heard.texts, text.clone(), rng),
                }
            }
            _ => {}
        }
    }

    /// A request of a method: half of its fields, or all, or none.
    pub fn request(&self, method: &Method, rng: &mut StdRng) -> Tree {
        let share = *[0.0, 0.3, 0.6, 0.9, 1.0].choose(rng).unwrap();
        self.message(&method.input, share, 4, rng)
    }

    fn message(&self, name: &str, share: f64, depth: u32, rng: &mut StdRng) -> Tree {
        let mut fields = Vec::new();
        let mut members = Vec::new();
        for field in &self.messages[name].field {
            let key = field.name() == "idempotency_key" && rng.random_bool(0.8);
            if !key && !rng.random_bool(share) {
                continue;
            }
            // Two members of a oneof now and then, which JSON refuses and the wire takes.
            if let Some(index) = field.oneof_index.filter(|_| !field.proto3_optional()) {
                if members.contains(&index) && rng.random_bool(0.95) {
                    continue;
                }
                members.push(index);
            }
            let count = match field.label() {
                Label::Repeated => *[0, 1, 2, 20].choose(rng).unwrap(),
                _ => 1,
            };
            for _ in 0..count {
                fields.push((field.clone(), self.value(field, share, depth, rng)));
            }
        }
        Tree::Message(fields)
    }

    fn value(
        &self,
        field: &FieldDescriptorProto,
        share: f64,
        depth: u32,
        rng: &mut StdRng,
    ) -> Tree {
        match field.r#type() {
            Type::Message if depth == 0 => Tree::Message(Vec::new()),
            Type::Message => self.message(field.type_name(), share, depth - 1, rng),
            Type::Bool => Tree::Bool(rng.random()),
            Type::Enum => {
                Tree::Number(*[0, 1, 2, 3, 4, 5, 7, 99, 0x7fff_ffff].choose(rng).unwrap())
            }
            Type::Uint32 => Tree::Number(number(rng) & 0xffff_ffff),
            Type::Bytes => Tree::Bytes(self.bytes(rng)),
            Type::String => Tree::Text(self.text(field.name(), rng)),
            _ => Tree::Number(number(rng)),
        }
    }

    fn bytes(&self, rng: &mut StdRng) -> Vec<u8> {
        let heard = self.heard.lock().unwrap();
        if let Some(id) = heard.ids.choose(rng).filter(|_| rng.random_bool(0.6)) {
            return id.clone();
        }
        let length = *[0, 1, 16, 31, 32, 33, 64, 300, 5_000].choose(rng).unwrap();
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        if length == 33 {
            bytes[0] = 2;
        }
        bytes
    }

    fn text(&self, field: &str, rng: &mut StdRng) -> String {
        if field == "idempotency_key" && rng.random_bool(0.9) {
            return format!("key-{}", rng.random_range(0..KEYS));
        }
        if (field.contains("address") || field == "url") && rng.random_bool(0.7) {
            // Nobody is there, and nothing leaves this machine.
            let places = ["127.0.0.1:1", "[::1]:1", "https://127.0.0.1:1/hook", ":", "localhost:0"];
            return (*places.choose(rng).unwrap()).to_owned();
        }
        let heard = self.heard.lock().unwrap();
        let mut text = match heard.texts.choose(rng).filter(|_| rng.random_bool(0.6)) {
            Some(text) => text.clone(),
            None => {
                let length = *[0, 1, 3, 32, 64, 65, 640, 20_000].choose(rng).unwrap();
                let letters = ['a', '0', 'Z', ' ', '\n', '\0', 'ü', '☃', '%', '"', '\\', '.', '/'];
                (0..length).map(|_| *letters.choose(rng).unwrap()).collect()
            }
        };
        if rng.random_bool(0.2) && !text.is_empty() {
            let chars: Vec<char> = text.chars().collect();
            let end = rng.random_range(0..chars.len());
            text = chars[..end].iter().collect();
        }
        text
    }
}

fn keep<T>(all: &mut Vec<T>, one: T, rng: &mut StdRng) {
    if all.len() < REMEMBERED {
        all.push(one);
    } else {
        let index = rng.random_range(0..REMEMBERED);
        all[index] = one;
    }
}

fn number(rng: &mut StdRng) -> u64 {
    let edges = [
        0,
        1,
        2,
        100,
        1_000,
        1_001,
        65_535,
        65_536,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 32,
        1 << 53,
        2_100_000_000_000_000,
        2_100_000_000_000_000_000,
        i64::MAX as u64,
        u64::MAX - 1,
        u64::MAX,
    ];
    match rng.random_range(0..4) {
        0 => *edges.choose(rng).unwrap(),
        1 => rng.random(),
        _ => rng.random_range(0..200_000),
    }
}

/// A request, before it is written in one form or the other.
#[derive(Debug, Clone)]
pub enum Tree {
    Number(u64),
    Bool(bool),
    Bytes(Vec<u8>),
    Text(String),
    Message(Vec<(FieldDescriptorProto, Tree)>),
}

impl Tree {
    pub fn wire(&self) -> Vec<u8> {
        let Self::Message(fields) = self else { return Vec::new() };
        let mut out = Vec::new();
        for (field, value) in fields {
            let tag = field.number() as u32;
            let bytes = match value {
                Self::Number(number) => {
                    encode_key(tag, WireType::Varint, &mut out);
                    encode_varint(*number, &mut out);
                    continue;
                }
                Self::Bool(value) => {
                    encode_key(tag, WireType::Varint, &mut out);
                    encode_varint((*value).into(), &mut out);
                    continue;
                }
                Self::Bytes(bytes) => bytes.clone(),
                Self::Text(text) => text.clone().into_bytes(),
                Self::Message(_) => value.wire(),
            };
            encode_key(tag, WireType::LengthDelimited, &mut out);
            encode_varint(bytes.len() as u64, &mut out);
            out.extend(bytes);
        }
        out
    }

    pub fn json(&self) -> Value {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Bool(value) => (*value).into(),
            Self::Bytes(bytes) => hex::encode(bytes).into(),
            Self::Text(text) => text.clone().into(),
            Self::Message(fields) => {
                let mut map = Map::new();
                for (field, value) in fields {
                    let name = field.name().to_owned();
                    if field.label() != Label::Repeated {
                        map.insert(name, value.json());
                    } else if let Value::Array(items) =
                        map.entry(name).or_insert_with(|| Value::Array(Vec::new()))
                    {
                        items.push(value.json());
                    }
                }
                Value::Object(map)
            }
        }
    }

    /// As a query, without what no query can say.
    pub fn query(&self) -> String {
        let mut pairs = Vec::new();
        self.pairs("", &mut pairs);
        pairs.join("&")
    }

    fn pairs(&self, prefix: &str, pairs: &mut Vec<String>) {
        let Self::Message(fields) = self else { return };
        for (field, value) in fields {
            let key = format!("{prefix}{}", field.name());
            let text = match value {
                Self::Message(_) => {
                    value.pairs(&format!("{key}."), pairs);
                    continue;
                }
                Self::Number(number) => number.to_string(),
                Self::Bool(value) => value.to_string(),
                Self::Bytes(bytes) => hex::encode(bytes),
                Self::Text(text) => text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            };
            pairs.push(format!("{key}={text}"));
        }
    }
}
