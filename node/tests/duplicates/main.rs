//! Every mutation of the interface, sent by many callers at once with one key, while the node they
//! ask is killed in the middle: one effect, and the same answer for all.
//!
//! Three real processes on a chain served by this one. The mutations are those of the descriptors;
//! each has a case that prepares what it needs, and looks at the effect by another call. Whoever's
//! call breaks off repeats it with its key until there is an answer.
//!
//! `DUPLICATES` sets how many callers [100], `DUPLICATES_SEED` repeats a run's random choices,
//! `DUPLICATES_ROUNDS` how often each case runs [1], `DUPLICATES_ONLY` runs cases whose name has
//! this in it, `KILL_LOG` the nodes' log level [info]. The nodes' directories stay when it fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

mod callers;
mod cases;
#[path = "../support/process.rs"]
mod process;
mod receiver;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::FileDescriptorSet;

use cases::Case;
use world::World;

/// How long one case may take.
const CASE_MAX: Duration = Duration::from_secs(150);

/// Every method that takes an idempotency key, such as `Payments/Pay`.
fn mutations() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
    let mut names = BTreeSet::new();
    for service in set.file.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let input = method.input_type().rsplit('.').next().unwrap();
            let request = messages.iter().find(|message| message.name() == input).unwrap();
            if request.field.iter().any(|field| field.name() == "idempotency_key") {
                names.insert(format!("{}/{}", service.name(), method.name()));
            }
        }
    }
    names
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a case to its end, and says why it failed if it did.
async fn run(world: &Arc<World>, case: &Case) -> Option<String> {
    let begin = {
        let (world, case) = (Arc::clone(world), case.run);
        async move {
            world.ready().await;
            case(world).await;
        }
    };
    match tokio::time::timeout(CASE_MAX, tokio::task::spawn(begin)).await {
        Ok(Ok(())) => None,
        Err(_) => Some(format!("it takes more than {} seconds", CASE_MAX.as_secs())),
        Ok(Err(error)) => Some(match error.try_into_panic() {
            Ok(panic) => match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(panic) => {
                    panic.downcast::<&str>().map_or("?".to_owned(), |text| (*text).into())
                }
            },
            Err(error) => error.to_string(),
        }),
    }
}

#[test]
fn every_mutation_has_a_case() {
    let cases = cases::all();
    let names: BTreeSet<String> = cases.iter().map(|case| case.method.to_owned()).collect();
    assert_eq!(names.len(), cases.len(), "two cases for one mutation");
    assert_eq!(names, mutations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_over_a_kill_have_one_effect_and_one_answer() {
    let callers = setting("DUPLICATES").unwrap_or(100);
    let rounds: u32 = setting("DUPLICATES_ROUNDS").unwrap_or(1);
    let seed: u64 = setting("DUPLICATES_SEED").unwrap_or_else(rand::random);
    let only: String = setting("DUPLICATES_ONLY").unwrap_or_default();
    println!("DUPLICATES_SEED={seed} DUPLICATES={callers} DUPLICATES_ROUNDS={rounds}");
    let begin = Instant::now();
    let world = Arc::new(World::new(seed, callers).await);
    let mut failures = Vec::new();
    for _ in 0..rounds {
        for case in cases::all().iter().filter(|case| case.method.contains(&only)) {
            if let Some(why) = run(&world, case).await {
                failures.push(format!("{} (DUPLICATES_SEED={seed}): {why}", case.method));
            }
        }
    }
    println!("{}", world.table());
    println!("{} s", begin.elapsed().as_secs());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    world.tasks.stop().await;
}
