//! What goes on meanwhile: payments both ways, invoices, holds, offers, channels that come and go,
//! transactions, blocks, and nodes that are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use node::dev::DevChain;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::wallet_client::WalletClient;
use proto::v1::{self as pb};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::doors::{Doors, is_lost};
use crate::process::{PATIENCE, Process};

/// What the channels hold that carry the payments.
pub const CAPACITY_SAT: u64 = 5_000_000;
/// What the channels hold that come and go.
const SHORT_CAPACITY_SAT: u64 = 200_000;
/// How long one call may take before it is made again.
const CALL: Duration = Duration::from_secs(30);

/// Alice, whose log is followed, and bob.
pub const ALICE: usize = 0;
pub const BOB: usize = 1;

#[derive(Default)]
pub struct Counts {
    pub payments: AtomicU64,
    pub refused: AtomicU64,
    pub holds: AtomicU64,
    pub channels: AtomicU64,
    pub sends: AtomicU64,
    pub blocks: AtomicU64,
    pub kills: AtomicU64,
}

/// The two nodes under load.
pub struct Load {
    pub doors: [Doors; 2],
    pub calls: [Channel; 2],
    pub processes: [Mutex<Process>; 2],
    pub bob_id: Vec<u8>,
    pub bob_address: String,
    pub chain: Arc<DevChain>,
    pub counts: Counts,
    pub stop: AtomicBool,
    pub next: AtomicU64,
}

/// Calls until the answer is the node's own. A mutation has one key for all of these calls.
async fn ask<T, F>(call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match timeout(CALL, call()).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if !is_lost(&status) => return Err(status),
            Ok(Err(_)) | Err(_) => {}
        }
        assert!(Instant::now() < deadline, "a node did not answer in time");
        sleep(Duration::from_millis(50)).await;
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Load {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps for so many milliseconds, or until the load is over.
    async fn pause(&self, ms: std::ops::Range<u64>, rng: &mut StdRng) {
        let end = Instant::now() + Duration::from_millis(rng.random_range(ms));
        while Instant::now() < end && !self.stopped() {
            sleep(Duration::from_millis(100).min(end - Instant::now())).await;
        }
    }

    fn key(&self) -> String {
        format!("load-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn payments(&self, who: usize) -> PaymentsClient<Channel> {
        PaymentsClient::new(self.calls[who].clone())
    }

    /// One of what callers do, over and over.
    pub async fn errands(self: Arc<Self>, mut rng: StdRng) {
        while !self.stopped() {
            let payee = rng.random_range(0..2);
            match rng.random_range(0..100) {
                0..78 => {
                    let amount_msat = rng.random_range(1_000..2_000_000);
                    self.pay(payee, amount_msat).await;
                }
                // More than any channel holds.
                78..82 => self.pay(payee, CAPACITY_SAT * 2_000).await,
                82..90 => self.hold(payee, rng.random_bool(0.5), &mut rng).await,
                90..94 => self.withdraw(payee, rng.random()).await,
                94..97 => self.offer(payee).await,
                _ => {
                    self.address(payee).await;
                }
            }
            self.pause(0..150, &mut rng).await;
        }
    }

    async fn invoice(&self, payee: usize, amount_msat: u64, hash: Option<Vec<u8>>) -> pb::Invoice {
        let request = pb::CreateInvoiceRequest {
            idempotency_key: self.key(),
            amount_msat: Some(amount_msat),
            payment_hash: hash,
            ..pb::CreateInvoiceRequest::default()
        };
        ask(|| async {
            let call = self.doors[payee].call(request.clone());
            self.payments(payee).create_invoice(call).await
        })
        .await
        .unwrap()
    }

    /// The payment as far as it came; `None` if it was refused.
    async fn begin(&self, payee: usize, bolt11: &str, wait: pb::PayWait) -> Option<pb::Payment> {
        let payer = 1 - payee;
        let request = pb::PayRequest {
            idempotency_key: self.key(),
            target: Some(pb::pay_request::Target::Bolt11Invoice(bolt11.to_owned())),
            wait: wait.into(),
            timeout_seconds: Some(20),
            ..pb::PayRequest::default()
        };
        let begun = ask(|| async {
            let call = self.doors[payer].call(request.clone());
            self.payments(payer).pay(call).await
        })
        .await;
        match begun {
            Ok(payment) => {
                count(&self.counts.payments);
                Some(payment)
            }
            // No channel that carries it, for the moment or at all.
            Err(status) => {
                let code = status.code();
                assert_eq!(code, tonic::Code::FailedPrecondition, "{status:?}");
                count(&self.counts.refused);
                None
            }
        }
    }

    async fn pay(&self, payee: usize, amount_msat: u64) {
        let invoice = self.invoice(payee, amount_msat, None).await;
        self.begin(payee, &invoice.bolt11, pb::PayWait::Wait).await;
    }

    /// A payment that is held, and then taken or given back.
    async fn hold(&self, payee: usize, is_taken: bool, rng: &mut StdRng) {
        let preimage: [u8; 32] = rng.random();
        let hash = sha256::Hash::hash(&preimage).to_byte_array().to_vec();
        let invoice = self.invoice(payee, 50_000, Some(hash.clone())).await;
        let begun = self.begin(payee, &invoice.bolt11, pb::PayWait::ReturnAtOnce).await;
        let Some(payment) = begun else { return self.give_back(payee, hash).await };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = pb::LookupInvoiceRequest { payment_hash: hash.clone() };
            let invoice = ask(|| async {
                let call = self.doors[payee].call(request.clone());
                self.payments(payee).lookup_invoice(call).await
            });
            if invoice.await.unwrap().state() == pb::InvoiceState::Held {
                break;
            }
            let request = pb::GetPaymentRequest { payment_id: payment.payment_id.clone() };
            let payment = ask(|| async {
                let call = self.doors[1 - payee].call(request.clone());
                self.payments(1 - payee).get_payment(call).await
            });
            if payment.await.unwrap().state() == pb::PaymentState::Failed {
                break;
            }
            assert!(Instant::now() < deadline, "neither held nor failed: {hash:?}");
            sleep(Duration::from_millis(50)).await;
        }
        self.pause(0..800, rng).await;
        if !is_taken {
            return self.give_back(payee, hash).await;
        }
        let request =
            pb::SettleHoldRequest { idempotency_key: self.key(), preimage: preimage.to_vec() };
        let settled = ask(|| async {
            let call = self.doors[payee].call(request.clone());
            self.payments(payee).settle_hold(call).await
        });
        match settled.await {
            Ok(_) => count(&self.counts.holds),
            Err(_nothing_is_held) => self.give_back(payee, hash).await,
        }
    }

    async fn give_back(&self, payee: usize, payment_hash: Vec<u8>) {
        let request = pb::CancelHoldRequest { idempotency_key: self.key(), payment_hash };
        let cancelled = ask(|| async {
            let call = self.doors[payee].call(request.clone());
            self.payments(payee).cancel_hold(call).await
        });
        cancelled.await.unwrap();
        count(&self.counts.holds);
    }

    /// An invoice that nobody pays.
    async fn withdraw(&self, payee: usize, preimage: [u8; 32]) {
        let hash = sha256::Hash::hash(&preimage).to_byte_array().to_vec();
        self.invoice(payee, 50_000, Some(hash.clone())).await;
        self.give_back(payee, hash).await;
    }

    /// An offer: its event keeps its place in the log, and has no message.
    async fn offer(&self, payee: usize) {
        let request = pb::CreateOfferRequest {
            idempotency_key: self.key(),
            ..pb::CreateOfferRequest::default()
        };
        let made = ask(|| async {
            let call = self.doors[payee].call(request.clone());
            self.payments(payee).create_offer(call).await
        });
        // No path leads to a node whose peer has just been killed.
        if let Err(status) = made.await {
            assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
            count(&self.counts.refused);
        }
    }

    async fn address(&self, who: usize) -> String {
        let request = pb::NewAddressRequest { idempotency_key: self.key() };
        let made = ask(|| async {
            let call = self.doors[who].call(request.clone());
            WalletClient::new(self.calls[who].clone()).new_address(call).await
        });
        made.await.unwrap().address
    }

    /// Blocks, and a transaction of alice's now and then.
    pub async fn blocks(self: Arc<Self>, mut rng: StdRng) {
        while !self.stopped() {
            self.pause(1_000..8_000, &mut rng).await;
            let request = pb::SendRequest {
                idempotency_key: self.key(),
                address: self.address(BOB).await,
                amount: Some(pb::send_request::Amount::AmountSat(1_000)),
                ..pb::SendRequest::default()
            };
            let sent = ask(|| async {
                let call = self.doors[ALICE].call(request.clone());
                WalletClient::new(self.calls[ALICE].clone()).send(call).await
            });
            // Too little may be confirmed for the moment.
            if sent.await.is_ok() {
                count(&self.counts.sends);
            }
            self.mine(1).await;
        }
    }

    async fn mine(&self, blocks: u32) {
        self.chain.mine(blocks).await.unwrap();
        self.counts.blocks.fetch_add(blocks.into(), Ordering::Relaxed);
    }

    /// Opens a channel and closes it again, over and over.
    pub async fn channels(self: Arc<Self>, mut rng: StdRng) {
        while !self.stopped() {
            let request = pb::OpenChannelRequest {
                idempotency_key: self.key(),
                node_id: self.bob_id.clone(),
                address: Some(self.bob_address.clone()),
                capacity_sat: SHORT_CAPACITY_SAT,
                ..pb::OpenChannelRequest::default()
            };
            let opened = ask(|| async {
                let call = self.doors[ALICE].call(request.clone());
                ChannelsClient::new(self.calls[ALICE].clone()).open(call).await
            });
            // Bob may be down, or too little confirmed.
            if let Ok(channel) = opened.await {
                let active = [pb::ChannelState::Active, pb::ChannelState::Closed];
                if self.until(&channel.record_id, &active).await == Some(active[0]) {
                    self.pause(0..3_000, &mut rng).await;
                    self.close(&channel.record_id).await;
                    count(&self.counts.channels);
                }
            }
            self.pause(2_000..12_000, &mut rng).await;
        }
    }

    async fn close(&self, record_id: &[u8]) {
        let key = self.key();
        while !self.stopped() {
            let request = pb::CloseChannelRequest {
                idempotency_key: key.clone(),
                record_id: record_id.to_vec(),
                ..pb::CloseChannelRequest::default()
            };
            let closed = ask(|| async {
                let call = self.doors[ALICE].call(request.clone());
                ChannelsClient::new(self.calls[ALICE].clone()).close(call).await
            });
            if closed.await.is_ok() {
                self.until(record_id, &[pb::ChannelState::Closed]).await;
                return;
            }
            // Bob is down for the moment.
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Mines until alice's channel is in one of these states; `None` if the load is over first.
    async fn until(
        &self,
        record_id: &[u8],
        states: &[pb::ChannelState],
    ) -> Option<pb::ChannelState> {
        while !self.stopped() {
            let request = pb::GetChannelRequest { record_id: record_id.to_vec() };
            let found = ask(|| async {
                let call = self.doors[ALICE].call(request.clone());
                ChannelsClient::new(self.calls[ALICE].clone()).get(call).await
            });
            let state = found.await.unwrap().state();
            if states.contains(&state) {
                return Some(state);
            }
            if state != pb::ChannelState::Opening {
                self.mine(2).await;
            }
            sleep(Duration::from_millis(400)).await;
        }
        None
    }

    /// Kills a node at a random moment and starts it again, over and over: mostly alice.
    pub async fn kills(self: Arc<Self>, mut rng: StdRng) {
        self.pause(5_000..9_000, &mut rng).await;
        let mut victim = ALICE;
        while !self.stopped() {
            {
                let mut process = self.processes[victim].lock().await;
                process.kill();
                count(&self.counts.kills);
                // Sometimes the world goes on without it for a while.
                if rng.random_bool(0.3) {
                    sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
                }
                process.start();
                process.door().await;
            }
            self.pause(12_000..28_000, &mut rng).await;
            victim = if rng.random_bool(0.8) { ALICE } else { BOB };
        }
    }
}
