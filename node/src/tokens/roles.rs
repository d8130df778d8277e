//! Roles: named sets of methods.
//!
//! A token carries the name of its role, not the list, so that a later version's methods find
//! their way into it. What no role names, only the administrator may call.

use std::str::FromStr;

use super::restriction::RestrictionError;

/// A named set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Runs the node: everything but tokens and the methods that are there to pay others. It can
    /// give money away all the same, with a channel's `push_msat` or its closing address.
    Operator,
    /// Pays.
    Payer,
    /// Is paid.
    Receiver,
    /// Sees how everything stands.
    ReadOnly,
    /// Sees that, and exports and the log of events: everything that ever happened.
    Auditor,
}

/// What an operator may not call.
const NOT_OPERATORS: [&str; 6] = [
    "tributary.v1.Payments/Pay",
    "tributary.v1.Payments/PayStream",
    "tributary.v1.Wallet/Send",
    "tributary.v1.Batches/Withdraw",
    "tributary.v1.Payouts/Accept",
    "tributary.v1.Payouts/Retry",
];

/// Of payouts a payer sees those whose ids it knows.
const PAYER: [&str; 19] = [
    "tributary.v1.Node/GetInfo",
    "tributary.v1.Payments/Decode",
    "tributary.v1.Payments/EstimateRoute",
    "tributary.v1.Payments/Pay",
    "tributary.v1.Payments/PayStream",
    "tributary.v1.Payments/WatchPayment",
    "tributary.v1.Payments/GetPayment",
    "tributary.v1.Payouts/Create",
    "tributary.v1.Payouts/CreateStream",
    "tributary.v1.Payouts/Accept",
    "tributary.v1.Payouts/Pause",
    "tributary.v1.Payouts/Resume",
    "tributary.v1.Payouts/Cancel",
    "tributary.v1.Payouts/Retry",
    "tributary.v1.Payouts/Get",
    "tributary.v1.Payouts/Watch",
    "tributary.v1.Payouts/ListLines",
    "tributary.v1.Payouts/ExportLines",
    "tributary.v1.Payouts/GetReconciliation",
];

const RECEIVER: [&str; 9] = [
    "tributary.v1.Node/GetInfo",
    "tributary.v1.Payments/CreateInvoice",
    "tributary.v1.Payments/CreateOffer",
    "tributary.v1.Payments/Decode",
    "tributary.v1.Payments/SettleHold",
    "tributary.v1.Payments/CancelHold",
    "tributary.v1.Payments/LookupInvoice",
    "tributary.v1.Payments/ListInvoices",
    "tributary.v1.Wallet/NewAddress",
];

/// How the names of methods begin that change nothing, the log of events and exports apart.
const LOOKS: [&str; 6] = ["Get", "List", "Watch", "Decode", "Lookup", "Estimate"];

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Operator, Self::Payer, Self::Receiver, Self::ReadOnly, Self::Auditor];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Payer => "payer",
            Self::Receiver => "receiver",
            Self::ReadOnly => "read-only",
            Self::Auditor => "auditor",
        }
    }

    /// Whether it has `method`, a full name such as `tributary.v1.Payments/Pay`.
    pub fn has(self, method: &str) -> bool {
        let Some((service, name)) = method.split_once('/') else {
            return false;
        };
        let of_tokens = service == "tributary.v1.Tokens";
        let of_events = service == "tributary.v1.Events";
        let reflects = service.starts_with("grpc.reflection.");
        let looks = LOOKS.iter().any(|verb| name.starts_with(verb));
        match self {
            Self::Admin => true,
            Self::Operator => !of_tokens && !NOT_OPERATORS.contains(&method),
            Self::Payer => PAYER.contains(&method),
            Self::Receiver => RECEIVER.contains(&method),
            Self::ReadOnly => reflects || looks && !of_tokens && !of_events,
            Self::Auditor => reflects || of_events || looks || name.starts_with("Export"),
        }
    }
}

impl FromStr for Role {
    type Err = RestrictionError;

    fn from_str(text: &str) -> Result<Self, RestrictionError> {
        let named = Self::ALL.into_iter().find(|role| role.name() == text);
        named.ok_or_else(|| RestrictionError::Role(text.to_owned()))
    }
}
