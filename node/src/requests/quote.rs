//! Quotes: which way a payment would take, what it would cost, and what may go wrong.
//!
//! A quote is computed, not stored. It names the invoice, offer or address itself, never the name
//! or URI it was found in, and the most that it may cost; who pays with that pays nobody else and
//! no more, whatever became of the name or of the feerates since.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, ScriptBuf, Txid};

use super::Requests;
use super::reading::{Problem, ReadError, Reading, Way, WayKind};
use crate::lightning::{RouteEstimate, RouteTarget};
use crate::onchain::SendCost;
use crate::store::StoreError;
use crate::wallet::{SpendError, TransactionInfo};

/// How long what a quote says of fees is taken for granted.
const QUOTE_LIFE: Duration = Duration::from_secs(60);
/// Less than this is left: the payer should hurry.
const SOON: Duration = Duration::from_secs(60);
/// Below this the first try is more likely to fail than not, millionths.
const UNLIKELY_BELOW: u32 = 500_000;
/// Blocks for which money may be stuck without a word: a week.
const LOCKED_LONG: u32 = 1_008;
/// An on-chain fee of more than a tenth of the amount is worth a word.
const FEE_SHARE_HIGH: u64 = 10;
/// All bitcoin there will ever be, msat.
const AMOUNT_MSAT_MAX: u64 = 21_000_000 * 100_000_000 * 1_000;

/// What a quote is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteAsk {
    /// Any text that asks for a payment.
    pub text: String,
    /// What is to arrive, msat; required where the text names no amount.
    pub amount_msat: Option<u64>,
    /// Most it may cost, msat.
    pub max_fee_msat: Option<u64>,
    /// Most parts, over channels.
    pub max_parts: Option<u8>,
    /// Feerate on chain; `None` for the estimate.
    pub feerate_sat_per_vb: Option<u64>,
    /// Which ways may be taken.
    pub over: Over,
}

/// Which ways may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    /// Any; channels first.
    #[default]
    Any,
    /// Channels only.
    Lightning,
    /// A transaction only.
    OnChain,
}

impl Over {
    fn takes(self, kind: WayKind) -> bool {
        match self {
            Self::Any => true,
            Self::Lightning => kind.is_lightning(),
            Self::OnChain => kind == WayKind::OnChain,
        }
    }
}

/// What paying would cost and risk, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// What the text offers.
    pub reading: Reading,
    /// The way chosen.
    pub way: Way,
    /// What arrives, msat.
    pub amount_msat: u64,
    /// What it costs beside that now, msat; unknown where the way to the recipient is.
    pub fee_msat: Option<u64>,
    /// What it costs at most, msat: the bound that paying holds.
    pub max_fee_msat: u64,
    /// The route, over channels.
    pub route: Option<RouteEstimate>,
    /// The fee in detail, on chain.
    pub chain: Option<SendCost>,
    /// Whether the recipient is a peer that is connected now; unknown for everybody else.
    pub recipient_connected: Option<bool>,
    /// Until when the quote counts, since the Unix epoch.
    pub until: Duration,
    /// Whether it can be paid as it stands.
    pub payable: bool,
    /// What the payer should know.
    pub warnings: Vec<Warning>,
}

/// Something that the payer should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// For programs.
    pub kind: WarningKind,
    /// For people.
    pub text: String,
}

/// What a warning is about. The upper ones, up to `NoCoins`, mean that it cannot be paid so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WarningKind {
    /// The channels can send less.
    AmountAboveSpendable,
    /// No route carries it, whatever it costs.
    NoRoute,
    /// It costs more than it may.
    FeeAboveLimit,
    /// This invoice was paid, or is being paid.
    AlreadyPaid,
    /// The recipient is this node.
    PaysItself,
    /// An amount that no transaction can bring.
    AmountNotOnChain,
    /// The wallet's free coins do not pay for it.
    NoCoins,
    /// Another way stands before it in the request, and cannot be taken.
    OtherWayLeft,
    /// The request, or its name, counts for less than a minute.
    ExpiresSoon,
    /// The last hops are hidden, and so is their fee.
    RouteHidden,
    /// The first try is more likely to fail.
    RouteUnlikely,
    /// The money may be stuck for more than a week.
    LockedLong,
    /// The fee is high for the amount.
    FeeHigh,
    /// Nobody knows whether the recipient is online.
    RecipientUnknown,
}

impl WarningKind {
    /// Whether it keeps the quote from being paid.
    pub fn blocks(self) -> bool {
        self <= Self::NoCoins
    }
}

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum QuoteError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("nothing in the request can be paid: {}", told(.problems))]
    NothingPayable { problems: Vec<(WayKind, Problem)> },
    #[error("the request has no way to pay {0}")]
    NotOver(&'static str),
    #[error("the request names no amount; give one")]
    AmountMissing,
    #[error("amount must be at least 1 msat")]
    ZeroAmount,
    #[error("amount {amount_msat} msat is more than all bitcoin; check its unit")]
    AmountTooHigh { amount_msat: u64 },
    #[error(
        "the request asks for {asked_msat} msat, {given_msat} msat were given; leave the amount out, or give the same"
    )]
    AmountMismatch { asked_msat: u64, given_msat: u64 },
    #[error(transparent)]
    Spend(#[from] SpendError),
    #[error("the search broke off: {0}")]
    Broken(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn told(problems: &[(WayKind, Problem)]) -> String {
    let told = problems.iter().map(|(kind, problem)| format!("{}: {problem}", kind.words()));
    told.collect::<Vec<_>>().join("; ")
}

/// What was found out about one way.
#[derive(Default)]
struct Price {
    fee_msat: Option<u64>,
    max_fee_msat: u64,
    route: Option<RouteEstimate>,
    chain: Option<SendCost>,
    recipient_connected: Option<bool>,
    warnings: Vec<Warning>,
}

impl Price {
    fn warn(&mut self, kind: WarningKind, text: impl Into<String>) {
        self.warnings.push(Warning { kind, text: text.into() });
    }

    fn blocker(&self) -> Option<&Warning> {
        self.warnings.iter().find(|warning| warning.kind.blocks())
    }
}

impl Requests {
    /// Chooses a way to pay and says what it would cost. Nothing is paid, held or stored.
    ///
    /// Ways over channels come first; the first that can be paid is taken. If none can, the quote
    /// is of the first, and says why not. A request whose invoice was paid, or is being paid, is
    /// not payable in any of its ways: it asks for one payment.
    ///
    /// # Errors
    ///
    /// See [`QuoteError`].
    pub async fn quote(&self, ask: &QuoteAsk) -> Result<Quote, QuoteError> {
        let reading = self.read(&ask.text).await?;
        let candidates: Vec<Way> = reading.candidates().into_iter().cloned().collect();
        if candidates.is_empty() {
            let problem = |way: &Way| Some((way.kind, way.problem.clone()?));
            let problems = reading.ways.iter().filter_map(problem).collect();
            return Err(QuoteError::NothingPayable { problems });
        }
        let mut wanted = candidates.into_iter().filter(|way| ask.over.takes(way.kind)).peekable();
        if wanted.peek().is_none() {
            let how = if ask.over == Over::OnChain { "on chain" } else { "over channels" };
            return Err(QuoteError::NotOver(how));
        }
        let paid = self.paid_in(&reading)?;
        let mut best: Option<Quote> = None;
        let mut left = Vec::new();
        for way in wanted {
            let amount_msat = amount(&reading, &way, ask.amount_msat)?;
            let mut price = match (&paid, way.kind) {
                (Some(why), _) => Price { warnings: vec![why.clone()], ..Price::default() },
                (None, WayKind::OnChain) => self.price_on_chain(&way, amount_msat, ask)?,
                (None, _) => self.price_lightning(&way, amount_msat, ask).await?,
            };
            let payable = price.blocker().is_none();
            if let Some(why) = price.blocker() {
                left.push(format!("{} was left: {}", way.kind.words(), why.text));
            } else {
                for why in left.drain(..) {
                    price.warn(WarningKind::OtherWayLeft, why);
                }
            }
            let quote = self.quoted(&reading, way, amount_msat, price);
            if payable {
                return Ok(quote);
            }
            best.get_or_insert(quote);
        }
        best.ok_or(QuoteError::NotOver("at all"))
    }

    /// The warning that an invoice in the request was paid, or is being paid, by this node.
    fn paid_in(&self, reading: &Reading) -> Result<Option<Warning>, QuoteError> {
        for way in &reading.ways {
            if let Some(hash) = way.lightning.as_ref().and_then(|decoded| decoded.hash)
                && let Some(id) = self.payments.payment_of(hash)?
            {
                let text = format!("payment {id} pays or paid it");
                return Ok(Some(Warning { kind: WarningKind::AlreadyPaid, text }));
            }
        }
        // An address beside an invoice asks for the same payment as that.
        let asks_once = reading.ways.iter().any(|way| way.kind == WayKind::Bolt11);
        let sent = asks_once.then(|| self.sent_to(reading)).flatten();
        Ok(sent.map(|txid| {
            let text = format!("transaction {txid} pays or paid it");
            Warning { kind: WarningKind::AlreadyPaid, text }
        }))
    }

    /// A transaction out of the wallet to an address of the request.
    fn sent_to(&self, reading: &Reading) -> Option<Txid> {
        let ways = reading.ways.iter().filter(|way| way.kind == WayKind::OnChain);
        let addresses =
            ways.filter_map(|way| Address::<NetworkUnchecked>::from_str(&way.text).ok());
        let scripts: Vec<ScriptBuf> =
            addresses.map(|address| address.assume_checked().script_pubkey()).collect();
        if scripts.is_empty() {
            return None;
        }
        let pays = |info: &TransactionInfo| {
            let outputs = &info.transaction.output;
            info.sent > info.received
                && outputs.iter().any(|output| scripts.contains(&output.script_pubkey))
        };
        let all = self.onchain.wallet().list_transactions();
        all.iter().find(|info| pays(info)).map(|info| info.txid)
    }

    fn quoted(&self, reading: &Reading, way: Way, amount_msat: u64, mut price: Price) -> Quote {
        let now = self.clock.now();
        let ends = [way.expires(), reading.name.as_ref().map(|named| named.until)];
        let ends = ends.into_iter().flatten().min();
        if let Some(left) = ends.map(|end| end.saturating_sub(now)).filter(|left| *left < SOON) {
            let text = format!("it counts for {} s more", left.as_secs());
            price.warn(WarningKind::ExpiresSoon, text);
        }
        price.warnings.sort_by_key(|warning| warning.kind);
        let until = ends.map_or(now + QUOTE_LIFE, |end| end.min(now + QUOTE_LIFE));
        Quote {
            reading: reading.clone(),
            way,
            amount_msat,
            fee_msat: price.fee_msat,
            max_fee_msat: price.max_fee_msat,
            payable: price.blocker().is_none(),
            route: price.route,
            chain: price.chain,
            recipient_connected: price.recipient_connected,
            until,
            warnings: price.warnings,
        }
    }

    async fn price_lightning(
        &self,
        way: &Way,
        amount_msat: u64,
        ask: &QuoteAsk,
    ) -> Result<Price, QuoteError> {
        use WarningKind as K;
        let default_msat = self.payments.default_fee_msat(amount_msat);
        let max_fee_msat = ask.max_fee_msat.unwrap_or(default_msat);
        let mut price = Price { max_fee_msat, ..Price::default() };
        let decoded = way.lightning.as_ref();
        let payee = decoded.and_then(|decoded| decoded.payee);
        if payee == Some(self.lightning.node_id()) {
            price.warn(K::PaysItself, "it pays this node itself");
            return Ok(price);
        }
        match self.spendable_msat() {
            None => price.warn(K::AmountAboveSpendable, "no channel is usable now"),
            Some(msat) if msat < amount_msat => {
                let text = format!("the channels can send {msat} msat, {amount_msat} are asked");
                price.warn(K::AmountAboveSpendable, text);
            }
            Some(_) => {}
        }
        if price.blocker().is_some() {
            return Ok(price);
        }
        let target = match way.kind {
            WayKind::Bolt12 => RouteTarget::Offer(way.text.clone()),
            _ => RouteTarget::Invoice(way.text.clone()),
        };
        let found = self.search(&target, amount_msat, max_fee_msat, ask.max_parts).await?;
        let found = match found {
            Some(route) => Some(route),
            // Is there none, or none that is cheap enough?
            None => self.search(&target, amount_msat, AMOUNT_MSAT_MAX, ask.max_parts).await?,
        };
        match found {
            Some(route) => self.judge(&mut price, route),
            None if way.kind == WayKind::Bolt12 => {
                let text = "the way to the recipient is known once it has answered; \
                            the highest fee holds all the same";
                price.warn(K::RouteHidden, text);
            }
            None => price.warn(K::NoRoute, "no route carries it to the recipient"),
        }
        let peers = self.lightning.channel_peers();
        let peer = payee.filter(|payee| peers.contains(payee));
        price.recipient_connected = peer.map(|peer| self.lightning.is_connected(&peer));
        if price.recipient_connected != Some(true) {
            let text = match (price.recipient_connected, way.kind) {
                (Some(false), _) => "the recipient is a peer, and is not connected now",
                (_, WayKind::Bolt12) => "whether the recipient is online to answer is not known",
                _ => "whether the recipient is online is not known",
            };
            price.warn(K::RecipientUnknown, text);
        }
        Ok(price)
    }

    /// Looks for a route on a thread for such work: it is pure search on one core.
    async fn search(
        &self,
        target: &RouteTarget,
        amount_msat: u64,
        max_fee_msat: u64,
        max_parts: Option<u8>,
    ) -> Result<Option<RouteEstimate>, QuoteError> {
        let (payments, target) = (Arc::clone(&self.payments), target.clone());
        let search =
            move || payments.estimate_route(target, amount_msat, Some(max_fee_msat), max_parts);
        let found = tokio::task::spawn_blocking(search).await;
        found.map_err(|error| QuoteError::Broken(error.to_string()))
    }

    fn judge(&self, price: &mut Price, route: RouteEstimate) {
        use WarningKind as K;
        price.fee_msat = Some(route.fee_msat);
        if route.fee_msat > price.max_fee_msat {
            let (fee, most) = (route.fee_msat, price.max_fee_msat);
            price.warn(K::FeeAboveLimit, format!("the fee is {fee} msat, the limit {most} msat"));
        }
        if route.partial {
            let text = "the last hops are hidden: what they take is not counted; \
                        the highest fee holds all the same";
            price.warn(K::RouteHidden, text);
        }
        if route.success_probability_millionths < UNLIKELY_BELOW {
            let percent = route.success_probability_millionths / 10_000;
            let text = format!("the first try succeeds with {percent} % probability");
            price.warn(K::RouteUnlikely, text);
        }
        if route.total_cltv_expiry_delta > LOCKED_LONG {
            let blocks = route.total_cltv_expiry_delta;
            let text = format!("the money may be stuck for {blocks} blocks, more than a week");
            price.warn(K::LockedLong, text);
        }
        price.route = Some(route);
    }

    fn price_on_chain(
        &self,
        way: &Way,
        amount_msat: u64,
        ask: &QuoteAsk,
    ) -> Result<Price, QuoteError> {
        use WarningKind as K;
        let mut price = Price { max_fee_msat: ask.max_fee_msat.unwrap_or(0), ..Price::default() };
        if !amount_msat.is_multiple_of(1_000) {
            let text = format!("{amount_msat} msat is no whole number of satoshis");
            price.warn(K::AmountNotOnChain, text);
            return Ok(price);
        }
        let amount = Amount::from_sat(amount_msat / 1_000);
        let cost = match self.onchain.cost(&way.text, amount, ask.feerate_sat_per_vb) {
            Ok(cost) => cost,
            Err(error @ SpendError::Dust { .. }) => {
                price.warn(K::AmountNotOnChain, error.to_string());
                return Ok(price);
            }
            Err(
                error @ (SpendError::InsufficientFunds { .. } | SpendError::BreaksReserve { .. }),
            ) => {
                price.warn(K::NoCoins, error.to_string());
                return Ok(price);
            }
            Err(error) => return Err(error.into()),
        };
        let fee_msat = cost.fee.to_sat().saturating_mul(1_000);
        price.fee_msat = Some(fee_msat);
        price.chain = Some(cost);
        match ask.max_fee_msat {
            Some(most) if fee_msat > most => {
                let text =
                    format!("the fee is {} sat, the limit {} sat", fee_msat / 1_000, most / 1_000);
                price.warn(K::FeeAboveLimit, text);
            }
            Some(_) => {}
            // Room for another coin, should one of those be gone meanwhile.
            None => price.max_fee_msat = fee_msat.saturating_add(fee_msat.div_ceil(2_000) * 1_000),
        }
        if fee_msat > amount_msat / FEE_SHARE_HIGH {
            let percent = fee_msat.saturating_mul(100) / amount_msat.max(1);
            price.warn(K::FeeHigh, format!("the fee is {percent} % of the amount"));
        }
        Ok(price)
    }
}

/// What paying `way` brings: what is given, or what is asked, and both the same.
fn amount(reading: &Reading, way: &Way, given: Option<u64>) -> Result<u64, QuoteError> {
    let amount_msat = match (given, reading.asked_msat(way)) {
        (Some(0), _) => return Err(QuoteError::ZeroAmount),
        (Some(given_msat), Some(asked_msat)) if given_msat != asked_msat => {
            return Err(QuoteError::AmountMismatch { asked_msat, given_msat });
        }
        (Some(amount_msat), _) | (None, Some(amount_msat)) => amount_msat,
        (None, None) => return Err(QuoteError::AmountMissing),
    };
    match amount_msat > AMOUNT_MSAT_MAX {
        true => Err(QuoteError::AmountTooHigh { amount_msat }),
        false => Ok(amount_msat),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;

    use super::*;

    const ADDRESS: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";

    fn reading(text: &str) -> Reading {
        Reading::of(text, Network::Bitcoin, Duration::ZERO).unwrap()
    }

    #[test]
    fn an_amount_is_given_or_asked_and_both_agree() {
        let open = reading(ADDRESS);
        let asks = reading(&format!("bitcoin:{ADDRESS}?amount=0.00000005"));
        let of = |reading: &Reading, given| amount(reading, &reading.ways[0], given);
        assert_eq!(of(&open, Some(7)).unwrap(), 7);
        assert_eq!(of(&asks, None).unwrap(), 5_000);
        assert_eq!(of(&asks, Some(5_000)).unwrap(), 5_000);
        assert!(matches!(of(&open, None), Err(QuoteError::AmountMissing)));
        assert!(matches!(of(&open, Some(0)), Err(QuoteError::ZeroAmount)));
        let differs = of(&asks, Some(5_001));
        assert!(matches!(differs, Err(QuoteError::AmountMismatch { asked_msat: 5_000, .. })));
        let much = of(&open, Some(AMOUNT_MSAT_MAX + 1));
        assert!(matches!(much, Err(QuoteError::AmountTooHigh { .. })));
    }

    #[test]
    fn what_blocks_stands_above_what_warns() {
        use WarningKind as K;
        for kind in [K::AmountAboveSpendable, K::NoRoute, K::AlreadyPaid, K::NoCoins] {
            assert!(kind.blocks(), "{kind:?}");
        }
        for kind in [K::OtherWayLeft, K::RouteHidden, K::RecipientUnknown] {
            assert!(!kind.blocks(), "{kind:?}");
        }
    }

    #[test]
    fn ways_are_taken_as_wanted() {
        assert!(Over::Any.takes(WayKind::OnChain) && Over::Any.takes(WayKind::Bolt11));
        assert!(!Over::Lightning.takes(WayKind::OnChain) && Over::Lightning.takes(WayKind::Bolt12));
        assert!(Over::OnChain.takes(WayKind::OnChain) && !Over::OnChain.takes(WayKind::Bolt11));
    }
}
