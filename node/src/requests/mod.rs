//! Payment requests: read whatever somebody hands over, say what paying it would cost, and make
//! requests that every wallet can read.
//!
//! `uri.rs` reads and writes `bitcoin:` URIs, `names/` looks people up in the DNS, `reading.rs`
//! puts together what a text offers, `quote.rs` chooses a way and prices it, `create.rs` makes.
//! Nothing here pays: a quote says what to ask the payments service or the wallet for.

mod create;
mod names;
mod quote;
mod reading;
mod uri;

use std::sync::Arc;

use bitcoin::Network;

use crate::environment::Clock;
use crate::lightning::Lightning;
use crate::onchain::OnChain;
use crate::payments::Payments;

pub use create::{CreateRequest, CreateRequestError, MadeRequest, PartKeys};
pub use names::{NameError, Names, PersonName, PersonNameError, ProofError, Proven};
pub use quote::{Over, Quote, QuoteAsk, QuoteError, Warning, WarningKind};
pub use reading::{Named, Problem, ReadError, Reading, Source, Way, WayKind};
pub use uri::{Uri, UriError, UriKey, UriWay};

/// The service.
pub struct Requests {
    lightning: Arc<Lightning>,
    payments: Arc<Payments>,
    onchain: Arc<OnChain>,
    names: Names,
    clock: Arc<dyn Clock>,
    network: Network,
}

impl Requests {
    /// Over the services that pay and are paid.
    pub fn new(
        lightning: Arc<Lightning>,
        payments: Arc<Payments>,
        onchain: Arc<OnChain>,
        names: Names,
        clock: Arc<dyn Clock>,
        network: Network,
    ) -> Self {
        Self { lightning, payments, onchain, names, clock, network }
    }

    /// Reads any text that asks for a payment; a name is looked up.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn read(&self, text: &str) -> Result<Reading, ReadError> {
        let bare = text.trim();
        if Uri::is_one(bare) || !PersonName::is_meant(bare) {
            return Reading::of(bare, self.network, self.clock.now());
        }
        let name: PersonName = bare.parse().map_err(NameError::from)?;
        let proven = self.names.resolve(&name).await?;
        // A name stands for a URI and nothing else, so it cannot lead to another name.
        let uri = Uri::read(&proven.uri)?;
        let reading = Reading::of(&uri.to_string(), self.network, self.clock.now())?;
        Ok(Reading { name: Some(Named { name, until: proven.until }), ..reading })
    }

    /// What the usable channels can send, msat; `None` if there is no usable channel.
    pub fn spendable_msat(&self) -> Option<u64> {
        let channels = self.lightning.spendable();
        (channels.usable > 0).then_some(channels.msat)
    }
}
