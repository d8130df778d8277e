//! What the guard knows of each method: what it is called, whether it only looks, and whether a
//! token with a budget may call it.
//!
//! The list of methods is that of the descriptors; what each may spend is said here. A method that
//! changes something and is not named here is refused to tokens that bound their spending.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

/// What a call can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spending {
    /// Nothing leaves the node by it.
    Nothing,
    /// What it may cost is known beforehand, and its handler takes it from the caller's purse.
    Counted,
    /// Nobody can tell beforehand.
    Unbounded,
}

/// One method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    /// Whether it changes something.
    pub mutates: bool,
    /// Whether its answer is a stream.
    pub streams: bool,
    /// What it can cost.
    pub spending: Spending,
}

/// Methods whose cost is counted. `Channels.Open` in a batch is not, as its handler says.
const COUNTED: [&str; 7] = [
    "tributary.v1.Payments/Pay",
    "tributary.v1.Payments/PayStream",
    "tributary.v1.Wallet/Send",
    "tributary.v1.Wallet/BumpFee",
    "tributary.v1.Channels/Open",
    "tributary.v1.Payouts/Accept",
    "tributary.v1.Payouts/Retry",
];

/// Methods that change something and cost nothing.
const FREE: [&str; 24] = [
    "tributary.v1.Node/ConnectPeer",
    "tributary.v1.Node/DisconnectPeer",
    "tributary.v1.Node/Stop",
    "tributary.v1.Channels/UpdatePolicy",
    "tributary.v1.Payments/CreateInvoice",
    "tributary.v1.Payments/CreateOffer",
    "tributary.v1.Payments/SettleHold",
    "tributary.v1.Payments/CancelHold",
    "tributary.v1.Wallet/NewAddress",
    "tributary.v1.Tower/AddTower",
    "tributary.v1.Tower/RemoveTower",
    "tributary.v1.Tokens/BakeToken",
    "tributary.v1.Tokens/RevokeToken",
    "tributary.v1.Webhooks/Create",
    "tributary.v1.Webhooks/Update",
    "tributary.v1.Webhooks/Delete",
    "tributary.v1.Webhooks/RotateSecret",
    "tributary.v1.Webhooks/SendTest",
    "tributary.v1.Webhooks/Replay",
    "tributary.v1.Payouts/Create",
    "tributary.v1.Payouts/CreateStream",
    "tributary.v1.Payouts/Pause",
    "tributary.v1.Payouts/Resume",
    "tributary.v1.Payouts/Cancel",
];

/// Methods of the interface by full name, such as `tributary.v1.Payments/Pay`.
static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)
        .expect("the build script wrote the descriptors");
    let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
    let mut methods = HashMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let input = method.input_type().rsplit('.').next().unwrap_or_default();
                let request = messages.iter().find(|message| message.name() == input);
                let mutates = request.is_some_and(|request| {
                    request.field.iter().any(|field| field.name() == "idempotency_key")
                });
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                let streams = method.server_streaming();
                let spending = spending(&name, mutates);
                methods.insert(name, Method { mutates, streams, spending });
            }
        }
    }
    methods
});

fn spending(name: &str, mutates: bool) -> Spending {
    match name {
        _ if COUNTED.contains(&name) => Spending::Counted,
        _ if !mutates || FREE.contains(&name) => Spending::Nothing,
        _ => Spending::Unbounded,
    }
}

/// What is known of `name`; of a method of another interface, such as reflection, that it looks.
pub(super) fn method(name: &str) -> Method {
    METHODS.get(name).copied().unwrap_or(Method {
        mutates: false,
        streams: true,
        spending: Spending::Nothing,
    })
}

/// Whether there is a method that `matches`.
pub(super) fn any_method(matches: impl Fn(&str) -> bool) -> bool {
    METHODS.keys().any(|name| matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Role;

    #[test]
    fn every_method_that_is_named_exists() {
        for name in COUNTED.iter().chain(&FREE) {
            assert!(METHODS[*name].mutates, "{name}");
        }
        for role in [Role::Payer, Role::Receiver] {
            let has = METHODS.keys().filter(|name| role.has(name)).count();
            let expected = if role == Role::Payer { 19 } else { 9 };
            assert_eq!(has, expected, "{role:?} names a method that is not there");
        }
    }

    /// A new method must be judged: by hand, here.
    #[test]
    fn what_nobody_can_count_is_known_by_name() {
        let mut unbounded: Vec<&str> = METHODS
            .iter()
            .filter(|(_, method)| method.spending == Spending::Unbounded)
            .map(|(name, _)| name.trim_start_matches("tributary.v1."))
            .collect();
        unbounded.sort_unstable();
        let expected = [
            "Batches/CloseHosted",
            "Batches/Deposit",
            "Batches/Exit",
            "Batches/Join",
            "Batches/OpenHosted",
            "Batches/Release",
            "Batches/SetPolicy",
            "Batches/Withdraw",
            "Channels/Close",
        ];
        assert_eq!(unbounded, expected);
    }

    #[test]
    fn roles_that_look_change_nothing() {
        for (name, method) in METHODS.iter() {
            for role in [Role::ReadOnly, Role::Auditor] {
                assert!(!(role.has(name) && method.mutates), "{role:?} has {name}");
            }
        }
        assert!(method("tributary.v1.Events/Subscribe").streams);
        assert!(!method("tributary.v1.Payments/Pay").streams);
    }
}
