//! An ldk-node as a process of its own, so that it can be killed: it reads one JSON request a line
//! on standard input and answers one a line on standard output, in the order in which they end.
//!
//! A request is `{"id": 1, "method": "pay", "params": {…}}`; an answer `{"id": 1, "result": …}` or
//! `{"id": 1, "error": "…"}`. The methods are those of `node.rs`. It ends with its input.

mod node;
mod outcomes;

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::node::Served;

/// Why something cannot be done, in words.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let settings = std::env::args().nth(1).ok_or("usage: interop-ldk SETTINGS-AS-JSON")?;
    let node = Arc::new(Served::start(&serde_json::from_str(&settings)?)?);
    let events = Arc::clone(&node);
    std::thread::Builder::new().name("events".to_owned()).spawn(move || events.take_events())?;
    let output = Arc::new(Mutex::new(std::io::stdout()));
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        // A payment answers when it is resolved: each request has a thread.
        let (node, output) = (Arc::clone(&node), Arc::clone(&output));
        std::thread::Builder::new().spawn(move || {
            let answer = match node.serve(&request) {
                Ok(result) => json!({ "id": request["id"], "result": result }),
                Err(error) => json!({ "id": request["id"], "error": error.to_string() }),
            };
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = writeln!(output, "{answer}").and_then(|()| output.flush()) {
                eprintln!("interop-ldk: an answer cannot be written: {error}");
            }
        })?;
    }
    node.stop()
}
