//! What a command prints: one JSON document, or text for people.
//!
//! JSON is made from the descriptors of the interface, in one place for every message: the
//! library's, which webhooks use too. Text is made by `table` (lists) and `text` (one thing). Colours are left out where standard
//! output is no terminal or NO_COLOR is set.

pub mod batch;
pub mod payout;
pub mod swap;
pub mod table;
pub mod text;
pub mod token;
pub mod tower;
pub mod webhook;

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use node::rpc::json;
use prost::Name;

use crate::args::Global;
use crate::error::CliError;

/// Where a command's answer goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Takes the user's wish.
    pub fn new(global: &Global) -> Self {
        Self { json: global.json }
    }

    /// Whether JSON is asked for.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints one answer: the message itself as JSON, or what `text` says of it.
    pub fn answer<M: Name>(
        self,
        message: &M,
        text: impl FnOnce(&M) -> String,
    ) -> Result<(), CliError> {
        match self.json {
            true => self.document(&json::of(message)?, true),
            false => self.text(&text(message)),
        }
    }

    /// Prints something that is no message of the interface.
    pub fn report<T: serde::Serialize>(
        self,
        report: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        match self.json {
            true => {
                let value = serde_json::to_value(report)
                    .map_err(|error| CliError::Failed(error.to_string()))?;
                self.document(&value, true)
            }
            false => self.text(&text(report)),
        }
    }

    /// Prints one of several answers that come over time: JSON on one line, or one line.
    pub fn item<M: Name>(
        self,
        message: &M,
        text: impl FnOnce(&M) -> String,
    ) -> Result<(), CliError> {
        match self.json {
            true => self.document(&json::of(message)?, false),
            false => self.text(&text(message)),
        }
    }

    /// Prints a JSON document, over several lines or on one.
    pub fn document(self, value: &serde_json::Value, pretty: bool) -> Result<(), CliError> {
        match pretty {
            true => self.text(&format!("{value:#}")),
            false => self.text(&value.to_string()),
        }
    }

    /// Prints text, with a line end if it has none.
    pub fn text(self, text: &str) -> Result<(), CliError> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') && !text.is_empty() {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    }

    /// Says something beside the answer, on standard error; not with JSON.
    pub fn note(self, text: &str) {
        if !self.json {
            anstream::eprintln!("{text}");
        }
    }
}

/// Whether standard output takes colours.
pub fn coloured() -> bool {
    !matches!(AutoStream::choice(&io::stdout()), ColorChoice::Never)
}

/// Writes `text` in `style`; the printer drops it where there are no colours.
pub fn styled(style: Style, text: &str) -> String {
    format!("{}{text}{}", style.render(), style.render_reset())
}
