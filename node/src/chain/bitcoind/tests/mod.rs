//! bitcoind: against small servers that misbehave, and against a real one where there is one.

mod real;
mod servers;
