//! What events of coins, chain, towers and access look like to a caller.

use proto::v1;

use super::convert::{block_hash_bytes, txid_bytes};
use crate::journal::{ChainEvent, SecurityEvent, TowerEvent, TowerStep, WalletEvent, WalletStep};

pub(super) fn wallet(event: &WalletEvent) -> v1::WalletEvent {
    use v1::WalletEventKind as K;
    let (kind, block_height) = match event.step {
        WalletStep::Created => (K::Created, None),
        WalletStep::Seen => (K::Seen, None),
        WalletStep::Confirmed { height } => (K::Confirmed, Some(height)),
        WalletStep::Unconfirmed => (K::Unconfirmed, None),
        WalletStep::Replaced => (K::Replaced, None),
    };
    v1::WalletEvent {
        kind: kind.into(),
        txid: txid_bytes(event.txid),
        spent_sat: event.spent_sat,
        received_sat: event.received_sat,
        block_height,
    }
}

pub(super) fn chain(event: &ChainEvent) -> v1::ChainEvent {
    use v1::ChainEventKind as K;
    let (kind, height, hash, detail) = match event {
        ChainEvent::Synced { height, hash } => (K::Synced, height, Some(hash), ""),
        ChainEvent::Reorganised { height, hash } => (K::Reorganised, height, Some(hash), ""),
        ChainEvent::Stalled { height } => (K::Stalled, height, None, ""),
        ChainEvent::SourceLost { height, why } => (K::SourceLost, height, None, why.as_str()),
        ChainEvent::SourceBack { height } => (K::SourceBack, height, None, ""),
    };
    v1::ChainEvent {
        kind: kind.into(),
        block_height: *height,
        block_hash: hash.map(|hash| block_hash_bytes(*hash)),
        detail: detail.to_owned(),
    }
}

pub(super) fn tower(event: &TowerEvent) -> v1::TowerEvent {
    use v1::TowerEventKind as K;
    let (kind, states_missed, detail) = match &event.step {
        TowerStep::Added => (K::Added, None, ""),
        TowerStep::Removed => (K::Removed, None, ""),
        TowerStep::Behind { why } => (K::Behind, None, why.as_str()),
        TowerStep::Reached => (K::Reached, None, ""),
        TowerStep::Missed { states } => (K::Missed, Some(*states), ""),
    };
    v1::TowerEvent {
        tower_id: event.tower.serialize().to_vec(),
        kind: kind.into(),
        states_missed,
        detail: detail.to_owned(),
    }
}

pub(super) fn security(event: &SecurityEvent) -> v1::SecurityEvent {
    use v1::SecurityEventKind as K;
    match event {
        SecurityEvent::TokenBaked { token, name } => v1::SecurityEvent {
            kind: K::TokenBaked.into(),
            token_id: Some(token.to_vec()),
            detail: name.clone(),
            ..v1::SecurityEvent::default()
        },
        SecurityEvent::TokenRevoked { token, narrowed } => v1::SecurityEvent {
            kind: K::TokenRevoked.into(),
            token_id: Some(token.to_vec()),
            detail: if *narrowed { "one that was narrowed from it" } else { "" }.to_owned(),
            ..v1::SecurityEvent::default()
        },
        SecurityEvent::AccessRefused { calls, why } => v1::SecurityEvent {
            kind: K::AccessRefused.into(),
            calls_refused: Some(*calls),
            detail: why.clone(),
            ..v1::SecurityEvent::default()
        },
        SecurityEvent::Breach { channel, peer, txid } => v1::SecurityEvent {
            kind: K::Breach.into(),
            channel_record_id: Some(channel.0.to_vec()),
            counterparty_node_id: Some(peer.serialize().to_vec()),
            txid: Some(txid_bytes(*txid)),
            ..v1::SecurityEvent::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use bitcoin::{BlockHash, Txid};

    use super::*;
    use crate::lightning::types::ChannelRef;

    #[test]
    fn every_step_has_a_kind_of_its_own() {
        let steps = [
            WalletStep::Created,
            WalletStep::Seen,
            WalletStep::Confirmed { height: 7 },
            WalletStep::Unconfirmed,
            WalletStep::Replaced,
        ];
        for (kind, step) in (1..).zip(steps) {
            let txid = Txid::from_byte_array([3; 32]);
            let event = wallet(&WalletEvent { txid, step, spent_sat: 5, received_sat: 6 });
            assert_eq!((event.kind, event.spent_sat, event.received_sat), (kind, 5, 6));
            assert_eq!(event.block_height.is_some(), step == WalletStep::Confirmed { height: 7 });
        }
        let tower_key = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
        let steps = [
            TowerStep::Added,
            TowerStep::Removed,
            TowerStep::Behind { why: "gone".into() },
            TowerStep::Reached,
            TowerStep::Missed { states: 4 },
        ];
        for (kind, step) in (1..).zip(steps) {
            let event = tower(&TowerEvent { tower: tower_key, step });
            assert_eq!(event.kind, kind);
            assert_eq!(event.states_missed, (kind == 5).then_some(4));
            assert_eq!(event.detail.is_empty(), kind != 3);
        }
        let hash = BlockHash::all_zeros();
        let events = [
            ChainEvent::Synced { height: 9, hash },
            ChainEvent::Reorganised { height: 9, hash },
            ChainEvent::Stalled { height: 9 },
            ChainEvent::SourceLost { height: 9, why: "gone".into() },
            ChainEvent::SourceBack { height: 9 },
        ];
        for (kind, event) in (1..).zip(events) {
            let written = chain(&event);
            assert_eq!((written.kind, written.block_height), (kind, 9));
            assert_eq!(written.block_hash.is_some(), kind <= 2);
        }
        let (channel, peer) = (ChannelRef([8; 16]), tower_key);
        let events = [
            SecurityEvent::TokenBaked { token: [2; 16], name: "shop".into() },
            SecurityEvent::TokenRevoked { token: [2; 16], narrowed: false },
            SecurityEvent::AccessRefused { calls: 11, why: "no token".into() },
            SecurityEvent::Breach { channel, peer, txid: Txid::from_byte_array([3; 32]) },
        ];
        for (kind, event) in (1..).zip(events) {
            let written = security(&event);
            assert_eq!(written.kind, kind);
            assert_eq!(written.token_id.is_some(), kind <= 2);
            assert_eq!(written.calls_refused, (kind == 3).then_some(11));
            assert_eq!(written.txid.is_some(), kind == 4);
        }
    }
}
