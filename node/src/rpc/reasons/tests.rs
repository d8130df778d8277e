//! The registry is whole: every reason is documented, given by somebody, and says what it carries;
//! `proto/ERRORS.md` is what the registry says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

#[test]
fn names_are_unique_and_well_formed() {
    let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        let name = reason.as_str();
        // The limits of google.rpc.ErrorInfo.
        assert!(name.len() <= 63, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
        assert!(!reason.remedy().is_empty(), "{name}");
        assert_ne!(reason.code(), Code::Ok, "{name}");
    }
}

/// The interface documents `CODE (REASON, …)`; the registry must agree, both ways.
#[test]
fn documented_reasons_are_those_of_the_registry() {
    let sources = concat!(
        include_str!("../../../../proto/tributary/v1/common.proto"),
        include_str!("../../../../proto/tributary/v1/node.proto"),
        include_str!("../../../../proto/tributary/v1/batches.proto"),
        include_str!("../../../../proto/tributary/v1/channels.proto"),
        include_str!("../../../../proto/tributary/v1/payments.proto"),
        include_str!("../../../../proto/tributary/v1/requests.proto"),
        include_str!("../../../../proto/tributary/v1/wallet.proto"),
        include_str!("../../../../proto/tributary/v1/events.proto"),
        include_str!("../../../../proto/tributary/v1/tower.proto"),
        include_str!("../../../../proto/tributary/v1/tokens.proto"),
        include_str!("../../../../proto/tributary/v1/webhooks.proto"),
        include_str!("../../../../proto/tributary/v1/payouts.proto"),
    );
    let codes = [
        ("INVALID_ARGUMENT", Code::InvalidArgument),
        ("FAILED_PRECONDITION", Code::FailedPrecondition),
        ("NOT_FOUND", Code::NotFound),
        ("ALREADY_EXISTS", Code::AlreadyExists),
        ("UNAVAILABLE", Code::Unavailable),
        ("UNAUTHENTICATED", Code::Unauthenticated),
        ("OUT_OF_RANGE", Code::OutOfRange),
        ("RESOURCE_EXHAUSTED", Code::ResourceExhausted),
        ("UNIMPLEMENTED", Code::Unimplemented),
        ("PERMISSION_DENIED", Code::PermissionDenied),
        ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
    ];
    let mut code = Code::Ok;
    let mut documented = BTreeSet::new();
    for line in sources.lines().map(str::trim) {
        let Some(comment) = line.strip_prefix("//") else {
            code = Code::Ok;
            continue;
        };
        for word in comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if let Some((_, named)) = codes.iter().find(|(name, _)| *name == word) {
                code = *named;
            } else if let Some(reason) = Reason::ALL.iter().find(|r| r.as_str() == word) {
                assert_eq!(reason.code(), code, "{word} is documented otherwise");
                documented.insert(*reason);
            } else if code != Code::Ok && word.contains('_') {
                let lower = word.chars().any(|c| c.is_ascii_lowercase());
                assert!(lower, "{word} is documented but not in the registry");
            }
        }
    }
    // Those that any method may answer.
    let general = [
        Reason::IdempotencyKeyMissing,
        Reason::IdempotencyKeyInvalid,
        Reason::PageSizeOutOfRange,
        Reason::FieldInvalid,
        Reason::StoreFailed,
        Reason::Internal,
    ];
    for reason in Reason::ALL {
        assert!(
            documented.contains(reason) || general.contains(reason),
            "{reason} is in the registry but not documented"
        );
    }
}

/// The sources of the gRPC room without its tests, as path and text.
fn sources() -> Vec<(PathBuf, String)> {
    fn visit(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "tests" {
                visit(&path, found);
            } else if name.ends_with(".rs") && !["tests.rs", "reasons.rs"].contains(&&*name) {
                let text = std::fs::read_to_string(&path).unwrap();
                // Modules of tests stand last in a file.
                let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
                found.push((path, text[..end].to_owned()));
            }
        }
    }
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rpc"), &mut found);
    assert!(found.len() > 20, "the test looks in the wrong place");
    found
}

/// Whether `text` has `word` between characters that are not part of a name.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn every_reason_is_given_by_somebody() {
    let sources = sources();
    let given = |reason: &Reason| {
        let path = format!("Reason::{}", reason.variant());
        sources.iter().any(|(_, text)| has_word(text, &path))
    };
    let idle: Vec<_> = Reason::ALL.iter().filter(|reason| !given(reason)).collect();
    assert!(idle.is_empty(), "in the registry, and nothing gives them: {idle:?}");
}

/// Which reason a key is given with is checked by `Refusal::with` in every test; here, that no key
/// is given that no reason documents, and none documented that is never given.
#[test]
fn metadata_is_documented_and_given() {
    let sources = sources();
    let mut given = BTreeSet::new();
    for (path, text) in &sources {
        let squeezed: String = text.split_whitespace().collect();
        for (at, with) in squeezed.match_indices(".with(\"") {
            let rest = &squeezed[at + with.len()..];
            let key = &rest[..rest.find('"').unwrap()];
            // What a span carries, by OpenTelemetry's names.
            if key.contains('.') {
                continue;
            }
            let documented = Reason::ALL.iter().any(|reason| reason.may_carry(key));
            assert!(documented, "{}: no reason documents {key}", path.display());
            given.insert(key.to_owned());
        }
    }
    for reason in Reason::ALL {
        for key in reason.metadata() {
            let is_given = key.ends_with(".*") || given.contains(*key);
            assert!(is_given, "{reason} documents {key}, and nothing gives it");
        }
    }
}

#[test]
fn causes_and_remedies_are_sentences() {
    for reason in Reason::ALL {
        let cause = reason.cause();
        assert!(cause.ends_with('.') && !cause.starts_with(' '), "{reason}: {cause:?}");
        assert!(!cause.contains("  ") && cause.len() > 20, "{reason}: {cause:?}");
        assert!(!reason.remedy().ends_with('.'), "{reason}");
        for key in reason.metadata() {
            assert!(!GENERAL_METADATA.contains(key), "{reason}: {key} is general");
        }
    }
}

/// `proto/ERRORS.md`.
fn document() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         Written from `node/src/rpc/reasons.rs` by `UPDATE=1 cargo test -p node --lib reasons`; do not edit.\n\n\
         A call that is refused ends with a `google.rpc.Status` that has one `google.rpc.ErrorInfo`: a \
         `reason` from this list, the domain `tributary`, and metadata. The name and the code of a \
         reason never change; its message may. `tributary explain REASON` prints what stands here.\n\n\
         \"Repeat\" says whether the very same call, with its idempotency key, may succeed: *later, as \
         it is*; *as it is, once the remedy is done*; or *not as it is: ask otherwise*. Repeating a \
         call with its key is always safe.\n\n\
         Any reason may carry:\n\n",
    );
    for (key, meaning) in GENERAL_METADATA.iter().zip([
        "what to do, more exactly than here where the node knows it",
        "`true` or `false`, wherever a caller must know",
        "after how many milliseconds the call may be repeated",
        "the field of the request that is wrong",
        "the value given",
        "the least that is allowed",
        "the most that is allowed",
        "how long the value is, in bytes",
        "how long it must be, in bytes",
    ]) {
        writeln!(text, "- `{key}`: {meaning}").unwrap();
    }
    for reason in Reason::ALL {
        writeln!(text, "\n## {reason}\n").unwrap();
        writeln!(text, "{}\n", reason.cause()).unwrap();
        writeln!(text, "- Code: `{}`", code_name(reason.code())).unwrap();
        writeln!(text, "- Remedy: {}", reason.remedy()).unwrap();
        writeln!(text, "- Repeat: {}", reason.retry().as_str()).unwrap();
        if !reason.metadata().is_empty() {
            let keys: Vec<_> = reason.metadata().iter().map(|key| format!("`{key}`")).collect();
            writeln!(text, "- Metadata: {}", keys.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn the_document_is_what_the_registry_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/ERRORS.md");
    let expected = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "proto/ERRORS.md is stale; run `UPDATE=1 cargo test -p node --lib reasons`"
    );
}
