//! Describes the REST door by OpenAPI 3.1, from the descriptors and their comments.
//!
//! What a path, a document and an error look like is said in `common.proto`; the code is
//! `node/src/rpc/rest/`. Nothing here is known of single methods.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use serde_json::{Map, Value, json};

/// Services that a node does not serve there: a tower's own door.
const ELSEWHERE: [&str; 1] = ["Watchtower"];

/// Deepest message whose fields may stand in a query.
const QUERY_DEPTH_MAX: usize = 4;

/// Numbers of fields in `descriptor.proto`, by which comments are found.
const OF_FILE_MESSAGE: i32 = 4;
const OF_FILE_ENUM: i32 = 5;
const OF_FILE_SERVICE: i32 = 6;
const OF_MESSAGE_FIELD: i32 = 2;
const OF_ENUM_VALUE: i32 = 2;
const OF_SERVICE_METHOD: i32 = 2;

/// Codes that comments name before the reasons.
const CODES: [&str; 12] = [
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
];

/// Comments of a file by their place in it.
type Comments = BTreeMap<Vec<i32>, String>;

struct Message<'a> {
    descriptor: &'a DescriptorProto,
    comment: String,
    fields: Vec<String>,
}

struct Enum<'a> {
    descriptor: &'a EnumDescriptorProto,
    comment: String,
    values: Vec<String>,
}

/// Everything by its full name, with the leading dot.
#[derive(Default)]
struct Interface<'a> {
    messages: BTreeMap<String, Message<'a>>,
    enums: BTreeMap<String, Enum<'a>>,
    /// What methods take.
    asked: BTreeSet<String>,
    /// What they answer.
    told: BTreeSet<String>,
}

/// Writes the document.
pub fn document(set: &FileDescriptorSet, version: &str) -> String {
    let mut interface = Interface::default();
    for file in &set.file {
        interface.read(file);
    }
    let mut paths = Map::new();
    let mut tags = Vec::new();
    let mut conventions = String::new();
    for file in &set.file {
        let comments = comments(file);
        if file.service.is_empty() && conventions.is_empty() {
            conventions = head(file);
        }
        for (index, service) in file.service.iter().enumerate() {
            if ELSEWHERE.contains(&service.name()) {
                continue;
            }
            let at = |rest: &[i32]| {
                comment(&comments, &[&[OF_FILE_SERVICE, index as i32], rest].concat())
            };
            tags.push(json!({ "name": service.name(), "description": at(&[]) }));
            for (number, method) in service.method.iter().enumerate() {
                let comment = at(&[OF_SERVICE_METHOD, number as i32]);
                let path = format!("/v1/{}/{}", service.name(), method.name());
                paths.insert(path, interface.operations(service, method, &comment));
            }
        }
    }
    paths.insert("/v1/openapi.json".to_owned(), itself());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tributary",
            "version": version,
            "summary": "The API of a Tributary node over HTTP and JSON.",
            "description": conventions,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{
            "url": "https://localhost:9737",
            "description": "As `rest.listen` says; the certificate is the node's own.",
        }],
        "security": [{ "token": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The text of admin.token, or a token with limits.",
                },
            },
            "parameters": parameters(),
            "responses": { "Refused": refused() },
            "schemas": interface.schemas(),
        },
    });
    let mut text = serde_json::to_string_pretty(&document).expect("a JSON value can be written");
    text.push('\n');
    text
}

impl<'a> Interface<'a> {
    fn read(&mut self, file: &'a FileDescriptorProto) {
        let comments = comments(file);
        for (index, descriptor) in file.message_type.iter().enumerate() {
            let at = |rest: &[i32]| {
                comment(&comments, &[&[OF_FILE_MESSAGE, index as i32], rest].concat())
            };
            let fields = (0..descriptor.field.len()).map(|i| at(&[OF_MESSAGE_FIELD, i as i32]));
            let message = Message { descriptor, comment: at(&[]), fields: fields.collect() };
            self.messages.insert(full_name(file, descriptor.name()), message);
        }
        for (index, descriptor) in file.enum_type.iter().enumerate() {
            let at =
                |rest: &[i32]| comment(&comments, &[&[OF_FILE_ENUM, index as i32], rest].concat());
            let values = (0..descriptor.value.len()).map(|i| at(&[OF_ENUM_VALUE, i as i32]));
            let item = Enum { descriptor, comment: at(&[]), values: values.collect() };
            self.enums.insert(full_name(file, descriptor.name()), item);
        }
        let services = file.service.iter().filter(|one| !ELSEWHERE.contains(&one.name()));
        for method in services.flat_map(|service| &service.method) {
            self.asked.insert(method.input_type().to_owned());
            self.told.insert(method.output_type().to_owned());
        }
    }

    /// These messages, and those that stand in them.
    fn reachable(&self, from: impl Iterator<Item = String>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut next: Vec<String> = from.collect();
        while let Some(name) = next.pop() {
            let Some(message) = self.messages.get(&name) else { continue };
            if found.insert(name) {
                let fields = message.descriptor.field.iter();
                next.extend(fields.map(|field| field.type_name().to_owned()));
            }
        }
        found
    }

    fn operations(
        &self,
        service: &ServiceDescriptorProto,
        method: &MethodDescriptorProto,
        comment: &str,
    ) -> Value {
        let request = &self.messages[method.input_type()];
        let mutates = has(request.descriptor, "idempotency_key");
        let resumes = method.server_streaming() && has(request.descriptor, "after_sequence");
        let answer = json!({ "$ref": reference(method.output_type()) });
        let content = match method.server_streaming() {
            true => json!({
                "text/event-stream": {
                    "schema": { "type": "string", "contentMediaType": "application/json", "contentSchema": answer },
                },
                "application/x-ndjson": {
                    "schema": { "type": "string", "contentMediaType": "application/json", "contentSchema": answer },
                },
            }),
            false => json!({ "application/json": { "schema": answer } }),
        };
        let description = match method.server_streaming() {
            true => {
                "The messages as they come: server-sent events, ended by the event `end` or `error`, or lines if `Accept` says application/x-ndjson."
            }
            false => "The answer.",
        };
        let operation = |suffix: &str| {
            let summary = comment.split_once(". ").map_or(comment, |(first, _)| first);
            let summary = summary.lines().next().unwrap_or_default();
            json!({
                "operationId": format!("{}_{}{suffix}", service.name(), method.name()),
                "tags": [service.name()],
                "summary": summary.trim_end_matches('.'),
                "description": comment,
                "x-reasons": reasons(comment),
                "responses": {
                    "200": { "description": description, "content": content },
                    "default": { "$ref": "#/components/responses/Refused" },
                },
            })
        };
        let mut parameters = vec![shared("TimeoutMs")];
        if mutates {
            parameters.push(shared("IdempotencyKey"));
        }
        if resumes {
            parameters.push(shared("LastEventId"));
        }
        let mut post = operation("");
        post["parameters"] = parameters.clone().into();
        post["requestBody"] = json!({
            "required": mutates,
            "content": {
                "application/json": { "schema": { "$ref": reference(method.input_type()) } },
            },
        });
        let mut item = json!({ "post": post });
        if !mutates {
            let mut get = operation("_get");
            self.query(method.input_type(), "", QUERY_DEPTH_MAX, &mut parameters);
            get["parameters"] = parameters.into();
            item["get"] = get;
        }
        item
    }

    /// The fields of a request as parameters of a query.
    fn query(&self, name: &str, prefix: &str, depth: usize, into: &mut Vec<Value>) {
        let message = &self.messages[name];
        for (field, comment) in message.descriptor.field.iter().zip(&message.fields) {
            let repeated = field.label() == Label::Repeated;
            let key = format!("{prefix}{}", field.name());
            match field.r#type() {
                Type::Message if repeated || depth == 0 => {}
                Type::Message => {
                    self.query(field.type_name(), &format!("{key}."), depth - 1, into);
                }
                _ => into.push(json!({
                    "name": key,
                    "in": "query",
                    "description": comment,
                    "schema": match repeated {
                        true => json!({ "type": "array", "items": plain(field) }),
                        false => plain(field),
                    },
                })),
            }
        }
    }

    fn schemas(&self) -> Value {
        let asked = self.reachable(self.asked.iter().cloned());
        let mut schemas = Map::new();
        let served = self.served();
        for (name, message) in &self.messages {
            if !served.contains(name) {
                continue;
            }
            let mut properties = Map::new();
            let mut always = Vec::new();
            for (field, comment) in message.descriptor.field.iter().zip(&message.fields) {
                properties.insert(field.name().to_owned(), property(field, comment));
                if field.oneof_index.is_none() || field.proto3_optional() {
                    always.push(field.name());
                }
            }
            let mut schema = json!({
                "type": "object",
                "description": message.comment,
                "properties": properties,
            });
            // A request may leave out everything, an answer leaves out members of a oneof alone. A
            // request has no other fields, an answer may have newer ones.
            match asked.contains(name) {
                true => schema["additionalProperties"] = false.into(),
                false => schema["required"] = always.into(),
            }
            schemas.insert(short(name).to_owned(), schema);
        }
        for (name, item) in &self.enums {
            if !served.contains(name) {
                continue;
            }
            let values = item.descriptor.value.iter();
            let names: Vec<&str> =
                values.map(|value| short_value(item.descriptor, value.name())).collect();
            let told = names.iter().zip(&item.values);
            let told = told.map(|(name, comment)| format!("- `{name}`: {comment}"));
            let told = told.collect::<Vec<_>>().join("\n");
            let schema = json!({
                "type": "string",
                "description": format!("{}\n\n{told}", item.comment),
                "enum": names,
            });
            schemas.insert(short(name).to_owned(), schema);
        }
        schemas.insert("Error".to_owned(), error());
        Value::Object(schemas)
    }

    /// The types of all that this door takes and answers.
    fn served(&self) -> BTreeSet<String> {
        let mut all = self.reachable(self.asked.iter().cloned().chain(self.told.iter().cloned()));
        let messages: Vec<&Message<'_>> = all.iter().filter_map(|n| self.messages.get(n)).collect();
        let enums: Vec<String> = messages
            .iter()
            .flat_map(|message| &message.descriptor.field)
            .filter(|field| field.r#type() == Type::Enum)
            .map(|field| field.type_name().to_owned())
            .collect();
        all.extend(enums);
        all
    }
}

fn full_name(file: &FileDescriptorProto, name: &str) -> String {
    format!(".{}.{name}", file.package())
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{}", short(name))
}

fn shared(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

fn has(message: &DescriptorProto, field: &str) -> bool {
    message.field.iter().any(|one| one.name() == field)
}

/// The name of an enum's value without the enum's own, as in `json`.
fn short_value<'a>(item: &EnumDescriptorProto, name: &'a str) -> &'a str {
    let zero = item.value.first().map_or("", |value| value.name());
    let prefix = zero.strip_suffix("UNSPECIFIED").unwrap_or_default();
    name.strip_prefix(prefix).unwrap_or(name)
}

/// The type of a field, its label aside.
fn plain(field: &FieldDescriptorProto) -> Value {
    match field.r#type() {
        Type::Message | Type::Enum => json!({ "$ref": reference(field.type_name()) }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Uint32 => {
            json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX })
        }
        Type::Uint64 if field.name() == "short_channel_id" => {
            json!({ "type": "string", "pattern": "^[0-9]+x[0-9]+x[0-9]+$" })
        }
        Type::Uint64 => {
            json!({ "type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX })
        }
        Type::Bytes => json!({ "type": "string", "pattern": "^([0-9a-fA-F]{2})*$" }),
        _ => json!({ "type": "string" }),
    }
}

fn property(field: &FieldDescriptorProto, comment: &str) -> Value {
    let plain = plain(field);
    let nullable = field.proto3_optional() || field.r#type() == Type::Message;
    let mut schema = if field.label() == Label::Repeated {
        json!({ "type": "array", "items": plain })
    } else if !nullable {
        plain
    } else if let Some(kind) = plain.get("type").cloned() {
        let mut schema = plain;
        schema["type"] = json!([kind, "null"]);
        schema
    } else {
        json!({ "anyOf": [plain, { "type": "null" }] })
    };
    schema["description"] = comment.into();
    schema
}

/// The reasons that a comment names, each with its code.
fn reasons(comment: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let (mut code, mut depth) = ("", 0_u32);
    let mut word = String::new();
    for c in comment.chars().chain([' ']) {
        if c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' {
            word.push(c);
            continue;
        }
        if !c.is_ascii_alphanumeric() && word.len() > 2 {
            match CODES.iter().find(|known| **known == word) {
                Some(known) => code = known,
                None if depth > 0 && !code.is_empty() => {
                    found.push(json!({ "code": code, "reason": word }));
                }
                None => {}
            }
        }
        word.clear();
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found
}

fn parameters() -> Value {
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The idempotency_key, if the body has none: 1 to 64 bytes of printable ASCII.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 64 },
        },
        "TimeoutMs": {
            "name": "X-Timeout-Ms",
            "in": "header",
            "description": "How long the caller waits. What the call began goes on.",
            "schema": { "type": "integer", "minimum": 1, "maximum": 99_999_999 },
        },
        "LastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Goes on after this sequence; goes before after_sequence.",
            "schema": { "type": "integer", "minimum": 0 },
        },
    })
}

fn refused() -> Value {
    json!({
        "description": "Refused. Any method may answer 400 (also FAILED_PRECONDITION and OUT_OF_RANGE), 401, 403, 404, 409 (ALREADY_EXISTS), 413, 415, 429, 500, 503 and 504; the reason says which it is.",
        "headers": {
            "Retry-After": {
                "description": "Seconds after which the call may be repeated.",
                "schema": { "type": "integer" },
            },
        },
        "content": {
            "application/json": { "schema": { "$ref": "#/components/schemas/Error" } },
        },
    })
}

fn error() -> Value {
    json!({
        "type": "object",
        "description": "Why a call was refused: google.rpc.Status as JSON, and what programs ask for first.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": [
                    "code", "status", "message", "reason", "remedy", "money_may_have_moved",
                    "retry_after_ms", "details",
                ],
                "properties": {
                    "code": { "type": "integer", "description": "Number of google.rpc.Code." },
                    "status": { "type": "string", "description": "Its name." },
                    "message": { "type": "string", "description": "A sentence that names the values." },
                    "reason": {
                        "type": ["string", "null"],
                        "description": "Why, for programs; it keeps its name for good.",
                    },
                    "remedy": { "type": ["string", "null"], "description": "What to do." },
                    "money_may_have_moved": {
                        "type": ["boolean", "null"],
                        "description": "Whether it may; repeat such a call with its key alone.",
                    },
                    "retry_after_ms": {
                        "type": ["integer", "null"],
                        "description": "When the call may be repeated, if it may.",
                    },
                    "details": {
                        "type": "array",
                        "description": "google.rpc.ErrorInfo and RetryInfo.",
                        "items": { "type": "object" },
                    },
                },
            },
        },
    })
}

/// The path at which the document itself is.
fn itself() -> Value {
    json!({
        "get": {
            "operationId": "openapi",
            "summary": "This document",
            "security": [],
            "responses": {
                "200": {
                    "description": "This document.",
                    "content": { "application/json": { "schema": { "type": "object" } } },
                },
            },
        },
    })
}

fn comments(file: &FileDescriptorProto) -> Comments {
    let places = file.source_code_info.iter().flat_map(|info| &info.location);
    places
        .filter(|place| !place.leading_comments().is_empty())
        .map(|place| (place.path.clone(), tidy(place.leading_comments())))
        .collect()
}

fn comment(comments: &Comments, path: &[i32]) -> String {
    comments.get(path).cloned().unwrap_or_default()
}

/// What stands above `syntax`: the purpose of a file, or the conventions of all.
fn head(file: &FileDescriptorProto) -> String {
    const SYNTAX: i32 = 12;
    comment(&comments(file), &[SYNTAX])
}

/// Joins the lines of a paragraph; an empty line stays.
fn tidy(text: &str) -> String {
    let mut paragraphs = vec![String::new()];
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            paragraphs.push(String::new());
            continue;
        }
        if let Some(paragraph) = paragraphs.last_mut() {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line);
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs.join("\n\n")
}
