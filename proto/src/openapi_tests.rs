//! The document of the REST door: complete, sound in itself, and the one that is published.

use std::collections::BTreeSet;

use serde_json::Value;

use super::OPENAPI;

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("the build script wrote JSON")
}

/// Every value under a key, however deep.
fn under<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| under(key, value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| under(key, value, found)),
        _ => {}
    }
}

/// To renew it: `RENEW_OPENAPI=1 cargo test -p proto openapi`.
#[test]
fn the_document_in_the_repository_is_that_of_the_interface() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("RENEW_OPENAPI").is_some() {
        std::fs::write(path, OPENAPI).expect("the repository can be written to");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == OPENAPI,
        "proto/openapi.json is stale; renew it: RENEW_OPENAPI=1 cargo test -p proto openapi"
    );
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let mut found = Vec::new();
    under("$ref", &document, &mut found);
    let mut used = BTreeSet::new();
    for reference in found.iter().filter_map(|value| value.as_str()) {
        let place = reference.strip_prefix('#').expect("references stay in the document");
        assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
        used.insert(reference.to_owned());
    }
    let schemas = document["components"]["schemas"].as_object().expect("there are schemas");
    for name in schemas.keys() {
        assert!(used.contains(&format!("#/components/schemas/{name}")), "nobody uses {name}");
    }
    assert!(schemas.len() > 100, "only {} schemas", schemas.len());
}

#[test]
fn every_operation_and_field_is_described() {
    let document = document();
    let paths = document["paths"].as_object().expect("there are paths");
    let mut ids = BTreeSet::new();
    for (path, item) in paths {
        for (verb, operation) in item.as_object().expect("operations by verb") {
            let id = operation["operationId"].as_str().expect("each has a name");
            assert!(ids.insert(id.to_owned()), "{id} comes twice");
            let told = operation["summary"].as_str().unwrap_or_default();
            assert!(!told.is_empty(), "{verb} {path} is not described");
        }
    }
    assert!(ids.len() > 60, "only {} operations", ids.len());
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        let mut found = Vec::new();
        under("properties", schema, &mut found);
        for (field, property) in found.iter().filter_map(|value| value.as_object()).flatten() {
            let told = property["description"].as_str().unwrap_or_default();
            assert!(!told.is_empty() || field == "error", "{name}.{field} is not described");
        }
    }
    let pay = &document["paths"]["/v1/Payments/Pay"]["post"];
    let reasons = pay["x-reasons"].as_array().expect("reasons");
    let named = |name: &str| reasons.iter().any(|reason| reason["reason"] == name);
    assert!(named("LIQUIDITY_INSUFFICIENT") && named("INVOICE_ALREADY_PAID"), "{reasons:?}");
    assert!(document["paths"]["/v1/Payments/Pay"].get("get").is_none(), "it changes something");
    let list = &document["paths"]["/v1/Payments/ListPayments"]["get"]["parameters"];
    let list = list.as_array().expect("parameters");
    assert!(list.iter().any(|one| one["name"] == "filter.states"), "{list:?}");
    assert!(paths.keys().all(|path| !path.contains("Watchtower")), "it is not served there");
    let pages = document["info"]["description"].as_str().unwrap_or_default();
    assert!(pages.contains("page_token"), "the conventions are in it");
}
