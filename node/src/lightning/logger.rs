//! LDK's log lines as tracing events.

use lightning::util::logger::{Level, Logger, Record};

/// Forwards LDK's records to `tracing` under the target `ldk`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingLogger;

impl Logger for TracingLogger {
    fn log(&self, record: Record) {
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(
                    target: "ldk",
                    module = record.module_path,
                    line = record.line,
                    peer = record.peer_id.map(tracing::field::display),
                    channel = record.channel_id.map(tracing::field::display),
                    "{}",
                    record.args
                )
            };
        }
        match record.level {
            // Gossip is the bulk of a node's messages and never worth a line.
            Level::Gossip => {}
            Level::Trace => emit!(trace),
            Level::Debug => emit!(debug),
            // LDK says "info" of what an operator of a busy hub reads as detail.
            Level::Info => emit!(debug),
            Level::Warn => emit!(info),
            Level::Error => emit!(warn),
        }
    }
}
