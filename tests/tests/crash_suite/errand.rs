//! What a caller wants done, asked for again with the same key whenever the answer did not come.

use std::collections::BTreeSet;

use node::dev::Cluster;
use node::journal::{IdempotencyError, IdempotencyKey};
use node::lightning::InvoiceDescription;
use node::lightning::types::{PaymentHash, PaymentId, Preimage};
use node::payments::{
    CreateInvoice, CreateInvoiceError, HoldError, PayError, PayRequest, PayTarget, PaymentState,
    PaymentWatch,
};
use tests::e2e::{Ledger, conserved, pay_request, received};

use crate::channel::{Closing, Opening};
use crate::{HOLD_MSAT, KEYSEND_MSAT, Operation};

/// One operation under way.
pub enum Errand {
    Open(Opening),
    Close(Closing),
    Payments(Vec<Payment>),
}

impl Errand {
    /// Prepares the errand with this number. What happens here is not part of the operation.
    pub async fn new(net: &Cluster, operation: Operation, number: u64) -> Self {
        match operation {
            Operation::Open => Self::Open(Opening::new(number)),
            Operation::Close => Self::Close(Closing::new(net).await),
            Operation::Pay { amount_msat } => {
                Self::Payments(vec![Payment::new(format!("{number}"), amount_msat, Word::None)])
            }
            Operation::Burst { payments, amount_msat } => {
                let mut all = Vec::new();
                for at in 0..payments {
                    let key = format!("{number} {at}");
                    let mut payment = Payment::new(key, amount_msat, Word::None);
                    assert!(payment.ask_to_be_paid(net).await, "nothing fails yet");
                    all.push(payment);
                }
                Self::Payments(all)
            }
            Operation::Settle => {
                Self::Payments(vec![Payment::new(format!("{number}"), HOLD_MSAT, Word::Settle)])
            }
            Operation::Cancel => {
                Self::Payments(vec![Payment::new(format!("{number}"), HOLD_MSAT, Word::Cancel)])
            }
            Operation::Restart => {
                let mut payment = Payment::new(format!("{number}"), HOLD_MSAT, Word::Settle);
                assert!(payment.ask_to_be_paid(net).await && payment.pay(net), "nothing fails yet");
                let id = payment.preimage().hash().inbound_id();
                received(net, "bob", id, PaymentState::Held).await;
                Self::Payments(vec![payment])
            }
            Operation::Keysend => {
                let mut payment = Payment::new(format!("{number}"), KEYSEND_MSAT, Word::None);
                payment.request = Some(PayRequest {
                    target: PayTarget::Keysend {
                        payee: net.node("hub").lightning.node_id(),
                        records: Vec::new(),
                    },
                    amount_msat: Some(KEYSEND_MSAT),
                    ..pay_request("", None)
                });
                Self::Payments(vec![payment])
            }
        }
    }

    /// Asks for what is left to be asked; true once the caller has got all it wanted.
    pub async fn advance(&mut self, net: &Cluster) -> bool {
        match self {
            Self::Open(opening) => opening.advance(net).await,
            Self::Close(closing) => closing.advance(net).await,
            Self::Payments(payments) => {
                // All leave before any is waited for.
                for payment in payments.iter_mut() {
                    if !payment.ask_to_be_paid(net).await || !payment.pay(net) {
                        return false;
                    }
                }
                for payment in payments {
                    if !payment.follow(net).await {
                        return false;
                    }
                }
                true
            }
        }
    }

    /// Forgets the answers under way: their node has gone.
    pub fn ask_again(&mut self) {
        if let Self::Payments(payments) = self {
            payments.iter_mut().for_each(|payment| payment.watch = None);
        }
    }

    /// Compares what the caller was told with what there is.
    pub async fn conclude(self, net: &Cluster, ledger: &mut Ledger) {
        let started = match &self {
            Self::Payments(payments) => payments.iter().filter_map(|payment| payment.id).collect(),
            _ => BTreeSet::new(),
        };
        ledger.check(net, &started).await;
        match self {
            Self::Open(opening) => opening.conclude(net).await,
            Self::Close(closing) => closing.conclude(net).await,
            Self::Payments(payments) => {
                for payment in payments {
                    payment.conclude(net).await;
                }
            }
        }
        conserved(net).await;
    }
}

/// The payee's word on a payment it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It holds nothing.
    None,
    Settle,
    Cancel,
}

/// A payment by alice, to bob if it has an invoice.
pub struct Payment {
    /// Under which payer and payee are asked.
    key: String,
    amount_msat: u64,
    word: Word,
    request: Option<PayRequest>,
    hash: Option<PaymentHash>,
    watch: Option<PaymentWatch>,
    /// Known once the payer has answered.
    id: Option<PaymentId>,
}

impl Payment {
    fn new(key: String, amount_msat: u64, word: Word) -> Self {
        Self { key, amount_msat, word, request: None, hash: None, watch: None, id: None }
    }

    fn preimage(&self) -> Preimage {
        let mut bytes = [7; 32];
        let key = self.key.as_bytes();
        bytes[..key.len()].copy_from_slice(key);
        Preimage(bytes)
    }

    async fn ask_to_be_paid(&mut self, net: &Cluster) -> bool {
        if self.request.is_some() {
            return true;
        }
        let create = CreateInvoice {
            amount_msat: Some(self.amount_msat),
            description: InvoiceDescription::Text("tea".into()),
            expiry: std::time::Duration::from_secs(3_600),
            min_final_cltv_expiry_delta: None,
            hash: (self.word != Word::None).then(|| self.preimage().hash()),
        };
        let key = IdempotencyKey::new("create invoice", &self.key).unwrap();
        match net.node("bob").payments.create_invoice(create, key.as_ref()).await {
            Ok(invoice) => {
                self.hash = Some(invoice.hash);
                self.request = Some(pay_request(&invoice.invoice, None));
                true
            }
            Err(
                CreateInvoiceError::Store(_)
                | CreateInvoiceError::Idempotency(IdempotencyError::Store(_)),
            ) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts the payment, unless an answer is known or awaited.
    fn pay(&mut self, net: &Cluster) -> bool {
        let Some(request) = self.request.as_ref().filter(|_| self.watch.is_none()) else {
            return true;
        };
        let key = IdempotencyKey::new("pay", &self.key).unwrap();
        match net.node("alice").payments.pay(request, key.as_ref()) {
            Ok(watch) => self.watch = Some(watch),
            // The neighbour is away, or the store fails: nothing was recorded.
            Err(
                PayError::NoUsableChannel
                | PayError::InsufficientBalance { .. }
                | PayError::Store(_)
                | PayError::Idempotency(IdempotencyError::Store(_)),
            ) => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }

    /// Hears the payer, and gives the payee's word when its time has come.
    async fn follow(&mut self, net: &Cluster) -> bool {
        let Some(watch) = &mut self.watch else {
            return false;
        };
        let Ok(record) = watch.current().await else {
            self.watch = None;
            return false;
        };
        let id = *self.id.get_or_insert(record.id);
        assert_eq!(record.id, id, "one key is one payment");
        if !record.state.is_final() {
            self.give_word(net).await;
        }
        record.state.is_final()
    }

    async fn give_word(&self, net: &Cluster) {
        let payments = &net.node("bob").payments;
        let (Some(hash), true) = (self.hash, self.word != Word::None) else {
            return;
        };
        let held = payments.get(hash.inbound_id()).await;
        if !matches!(held, Ok(Some(record)) if record.state == PaymentState::Held) {
            return;
        }
        let answer = match self.word {
            Word::Settle => payments.settle(self.preimage()).await,
            _ => payments.give_back(hash).await,
        };
        match answer {
            Ok(_) | Err(HoldError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The payer's record; the ledger has compared it with the payee's by now.
    async fn conclude(mut self, net: &Cluster) {
        self.watch = None;
        assert!(self.pay(net), "a repetition is answered");
        let record = self.watch.unwrap().outcome().await.unwrap();
        assert_eq!(Some(record.id), self.id, "one key is one payment");
        let wanted = match self.word {
            Word::Cancel => PaymentState::Failed,
            _ => PaymentState::Succeeded,
        };
        if record.state != wanted {
            println!("  {:?} instead of {wanted:?}: {:?}", record.state, record.failure);
        }
        assert!(self.word != Word::Cancel || record.state == PaymentState::Failed);
    }
}
