//! One hop a path may take, whatever told us about it, and the arithmetic of its fee.
//!
//! A search sees public channels, our own, hints of an invoice and blinded paths as the same
//! small value. The rules are LDK's: `lightning::routing::router`, which the tests compare with.

use lightning::routing::gossip::EffectiveCapacity;

/// The node beyond a blinded path, which has no index.
pub(super) const NOBODY: u32 = u32::MAX;

/// Who told us about a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HopKind {
    /// An edge of the snapshot.
    Public(u32),
    /// One of our own channels, by its place among the caller's first hops.
    First(u32),
    /// A private channel of an invoice, by its place among the hints.
    Private(u32),
    /// A blinded path of two hops or more, by its place in the request.
    Blinded(u32),
    /// A blinded path that ends where it begins, by its place in the request.
    OneHopBlinded(u32),
}

/// What shares liquidity: a channel in one direction, or a blinded path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum HopId {
    /// A channel; true if the source's id is the lesser one.
    Channel(u64, bool),
    /// A blinded path, by its place in the request.
    Blinded(u32),
}

/// What a node asks to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fee {
    /// Flat, msat.
    pub base_msat: u32,
    /// Proportional, millionths.
    pub ppm: u32,
}

impl Fee {
    /// No fee: we do not charge ourselves.
    pub const NONE: Self = Self { base_msat: 0, ppm: 0 };

    /// The fee on `amount_msat`, rounded down. `None` on overflow.
    pub fn on(self, amount_msat: u64) -> Option<u64> {
        let proportional = amount_msat.checked_mul(u64::from(self.ppm))? / 1_000_000;
        proportional.checked_add(u64::from(self.base_msat))
    }

    /// The fee on `amount_msat`, or the most there is.
    pub fn on_saturating(self, amount_msat: u64) -> u64 {
        self.on(amount_msat).unwrap_or(u64::MAX)
    }
}

/// One hop, towards the payee.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hop {
    /// Who told us.
    pub kind: HopKind,
    /// Whose liquidity it uses.
    pub id: HopId,
    /// The node that forwards.
    pub source: u32,
    /// The node reached; [`NOBODY`] at the end of a blinded path.
    pub target: u32,
    /// What `source` takes.
    pub fee: Fee,
    /// Blocks `source` wants.
    pub cltv_expiry_delta: u32,
    /// Least that may be sent, msat.
    pub htlc_minimum_msat: u64,
    /// What is known of the most.
    pub capacity: EffectiveCapacity,
}

impl Hop {
    /// Whether it is a blinded path, which adds no hop of its own to the onion's clear part.
    pub fn is_blinded(&self) -> bool {
        matches!(self.kind, HopKind::Blinded(_) | HopKind::OneHopBlinded(_))
    }

    /// Most to send at once, using up to 1/2^`saturation_shift` of a public channel, msat.
    pub fn htlc_maximum_msat(&self, saturation_shift: u8) -> u64 {
        htlc_maximum_msat(self.capacity, saturation_shift)
    }
}

/// See [`Hop::htlc_maximum_msat`].
pub(super) fn htlc_maximum_msat(capacity: EffectiveCapacity, saturation_shift: u8) -> u64 {
    let share = |msat: u64| msat.checked_shr(u32::from(saturation_shift)).unwrap_or(0);
    match capacity {
        EffectiveCapacity::ExactLiquidity { liquidity_msat } => liquidity_msat,
        EffectiveCapacity::HintMaxHTLC { amount_msat } => amount_msat,
        EffectiveCapacity::AdvertisedMaxHTLC { amount_msat } => share(amount_msat),
        EffectiveCapacity::Total { capacity_msat, htlc_maximum_msat } => {
            share(capacity_msat).min(htlc_maximum_msat)
        }
        EffectiveCapacity::Infinite => u64::MAX,
        EffectiveCapacity::Unknown => capacity.as_msat(),
    }
}

/// The fee of several hops as one, first hop first; `None` on overflow.
///
/// Source: BOLT 4, "Route Blinding", the recipient's aggregation.
pub(super) fn aggregate(
    fees: impl DoubleEndedIterator<Item = Fee>,
) -> Option<(/* base */ u64, /* millionths */ u64)> {
    fees.rev().try_fold((0_u64, 0_u64), |(base, ppm), fee| {
        let onward = 1_000_000 + u64::from(fee.ppm);
        let base = base.checked_mul(onward)?.checked_add(999_999)? / 1_000_000;
        let base = base.checked_add(u64::from(fee.base_msat))?;
        let ppm = ppm.checked_add(1_000_000)?.checked_mul(onward)?.checked_add(999_999)?;
        Some((base, (ppm / 1_000_000).checked_sub(1_000_000)?))
    })
}
