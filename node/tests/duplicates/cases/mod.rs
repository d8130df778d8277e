//! A case for each mutation: what it needs, what of its answer is the same for all, and where its
//! effect is seen.
//!
//! An answer that shows what goes on by itself, such as a channel on its way, is compared in what
//! cannot change; each case says what that is. All others are compared as they are.

mod access;
mod batches;
mod chain;
mod payments;
mod payouts;
mod webhooks;

use std::pin::Pin;
use std::sync::Arc;

use crate::world::World;

type Run = fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// How one mutation is tried.
pub struct Case {
    /// `Payments/Pay`.
    pub method: &'static str,
    pub run: Run,
}

macro_rules! cases {
    ($($method:literal => $run:path,)*) => {
        vec![$(Case { method: $method, run: |world| Box::pin(async move { $run(&world).await }) },)*]
    };
}

/// All of them, in the order in which they run.
pub fn all() -> Vec<Case> {
    cases! {
        "Payments/CreateInvoice" => payments::create_invoice,
        "Payments/CreateOffer" => payments::create_offer,
        "Payments/CreatePaymentRequest" => payments::create_payment_request,
        "Payments/Pay" => payments::pay,
        "Payments/PayStream" => payments::pay_stream,
        "Payments/SettleHold" => payments::settle_hold,
        "Payments/CancelHold" => payments::cancel_hold,
        "Payouts/Create" => payouts::create,
        "Payouts/CreateStream" => payouts::create_stream,
        "Payouts/Accept" => payouts::accept,
        "Payouts/Pause" => payouts::pause,
        "Payouts/Resume" => payouts::resume,
        "Payouts/Cancel" => payouts::cancel,
        "Payouts/Retry" => payouts::retry,
        "Wallet/NewAddress" => chain::new_address,
        "Wallet/Send" => chain::send,
        "Wallet/BumpFee" => chain::bump_fee,
        "Channels/Open" => chain::open,
        "Channels/UpdatePolicy" => chain::update_policy,
        "Channels/Close" => chain::close,
        "Tokens/BakeToken" => access::bake_token,
        "Tokens/RevokeToken" => access::revoke_token,
        "Tower/AddTower" => access::add_tower,
        "Tower/RemoveTower" => access::remove_tower,
        "Webhooks/Create" => webhooks::create,
        "Webhooks/Update" => webhooks::update,
        "Webhooks/RotateSecret" => webhooks::rotate_secret,
        "Webhooks/SendTest" => webhooks::send_test,
        "Webhooks/Replay" => webhooks::replay,
        "Webhooks/Delete" => webhooks::delete,
        "Node/DisconnectPeer" => access::disconnect_peer,
        "Node/ConnectPeer" => access::connect_peer,
        "Node/Stop" => access::stop,
        "Batches/SetPolicy" => batches::set_policy,
        "Batches/OpenHosted" => batches::open_hosted,
        "Batches/CloseHosted" => batches::close_hosted,
        "Batches/Join" => batches::join,
        "Batches/Release" => batches::release,
        "Batches/Withdraw" => batches::withdraw,
        "Batches/Deposit" => batches::deposit,
        "Batches/Exit" => batches::exit,
    }
}
