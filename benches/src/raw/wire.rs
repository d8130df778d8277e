//! Takes messages from one party and hands them to another, without a network between.

use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, CommitmentUpdate, ErrorAction, Init,
    MessageSendEvent,
};

use super::party::{Notice, Party};
use crate::Failure;

/// Passes of [`settle`] before it is taken for going round in circles.
const PASSES_MAX: usize = 100_000;

/// Introduces two parties to each other.
pub(crate) fn connect(one: &Party, other: &Party) -> Result<(), Failure> {
    let init = |of: &Party, to: &Party| Init {
        features: of.manager.provided_init_features(to.id),
        networks: None,
        remote_network_address: None,
    };
    let (of_one, of_other) = (init(one, other), init(other, one));
    one.manager.peer_connected(other.id, &of_other, false).map_err(|()| "peer refused")?;
    other.manager.peer_connected(one.id, &of_one, true).map_err(|()| "peer refused")?;
    Ok(())
}

/// Lets the parties work until none has anything left to do; returns what happened.
///
/// Messages go first, then forwards, then events: a group of HTLCs that was sent together
/// stays together on its whole way, as does the group of their fulfilments.
///
/// # Errors
///
/// A payment failed, a party complained about another, or the work does not end.
pub(crate) fn settle(parties: &[Party]) -> Result<Vec<Notice>, Failure> {
    let mut notices = Vec::new();
    for _ in 0..PASSES_MAX {
        if pass_messages(parties)? || forward(parties) {
            continue;
        }
        let mut events = 0;
        for party in parties {
            let handled = party.handle_events()?;
            events += handled.events;
            notices.extend(handled.notices);
        }
        if events == 0 {
            return Ok(notices);
        }
    }
    Err(format!("the parties were not quiet after {PASSES_MAX} passes").into())
}

/// Processes pending HTLCs; whether there were any.
fn forward(parties: &[Party]) -> bool {
    let mut any = false;
    for party in parties {
        if party.manager.needs_pending_htlc_processing() {
            party.manager.process_pending_htlc_forwards();
            any = true;
        }
    }
    any
}

/// Delivers what each party wants to send; whether there was anything.
fn pass_messages(parties: &[Party]) -> Result<bool, Failure> {
    let mut any = false;
    for from in parties {
        for event in from.manager.get_and_clear_pending_msg_events() {
            any = true;
            deliver(parties, from, event)?;
        }
    }
    Ok(any)
}

fn deliver(parties: &[Party], from: &Party, event: MessageSendEvent) -> Result<(), Failure> {
    let id = from.id;
    let to = |node_id| {
        let party = parties.iter().find(|party| party.id == node_id);
        party.map(|party| &party.manager).ok_or("a message to a stranger")
    };
    match event {
        MessageSendEvent::SendOpenChannel { node_id, msg } => {
            to(node_id)?.handle_open_channel(id, &msg);
        }
        MessageSendEvent::SendAcceptChannel { node_id, msg } => {
            to(node_id)?.handle_accept_channel(id, &msg);
        }
        MessageSendEvent::SendFundingCreated { node_id, msg } => {
            to(node_id)?.handle_funding_created(id, &msg);
        }
        MessageSendEvent::SendFundingSigned { node_id, msg } => {
            to(node_id)?.handle_funding_signed(id, &msg);
        }
        MessageSendEvent::SendChannelReady { node_id, msg } => {
            to(node_id)?.handle_channel_ready(id, &msg);
        }
        MessageSendEvent::SendChannelUpdate { node_id, msg } => {
            to(node_id)?.handle_channel_update(id, &msg);
        }
        MessageSendEvent::SendRevokeAndACK { node_id, msg } => {
            to(node_id)?.handle_revoke_and_ack(id, &msg);
        }
        MessageSendEvent::UpdateHTLCs { node_id, updates, .. } => {
            deliver_updates(to(node_id)?, from, updates);
        }
        MessageSendEvent::HandleError {
            action: ErrorAction::IgnoreError | ErrorAction::IgnoreAndLog(_),
            ..
        } => {}
        other => return Err(format!("nothing of this kind was expected: {other:?}").into()),
    }
    Ok(())
}

/// Hands over a commitment with its updates, in the order of a wire.
fn deliver_updates(to: &impl ChannelMessageHandler, from: &Party, updates: CommitmentUpdate) {
    let id = from.id;
    for add in &updates.update_add_htlcs {
        to.handle_update_add_htlc(id, add);
    }
    for fulfill in updates.update_fulfill_htlcs {
        to.handle_update_fulfill_htlc(id, fulfill);
    }
    for fail in &updates.update_fail_htlcs {
        to.handle_update_fail_htlc(id, fail);
    }
    for fail in &updates.update_fail_malformed_htlcs {
        to.handle_update_fail_malformed_htlc(id, fail);
    }
    if let Some(fee) = &updates.update_fee {
        to.handle_update_fee(id, fee);
    }
    for signed in &updates.commitment_signed {
        to.handle_commitment_signed(id, signed);
    }
}
