//! Payments that arrive, and requests that are refused before anything moves.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use node::channels::ChannelState;
use node::dev::{Cluster, NodeOptions};
use node::journal::{IdempotencyError, IdempotencyKey};
use node::lightning::{DecodeError, FailureReason, InvoiceDescription};
use node::payments::{
    CreateInvoice, CreateInvoiceError, CreateOffer, InvoiceState, PayError, PayRequest, PayTarget,
    PaymentKind, PaymentState,
};
use tests::e2e::{
    WAIT, channel_balance, conserved, hub_fee, invoice, invoice_state, line, open_request, outcome,
    paid, pay, pay_request, payments, received, settled,
};

const NAMES: [&str; 3] = ["alice", "hub", "bob"];
const FUNDS_SAT: u64 = 20_000_000;
const CAPACITY_SAT: u64 = 5_000_000;
const CAPACITY_MSAT: u64 = CAPACITY_SAT * 1_000;

async fn assert_moved(net: &Cluster, amount_msat: u64, fees_msat: u64) {
    settled(net).await;
    assert_eq!(channel_balance(net, "alice", "hub"), CAPACITY_MSAT - amount_msat - fees_msat);
    assert_eq!(channel_balance(net, "hub", "alice"), amount_msat + fees_msat);
    assert_eq!(channel_balance(net, "hub", "bob"), CAPACITY_MSAT - amount_msat);
    assert_eq!(channel_balance(net, "bob", "hub"), amount_msat);
}

pub async fn invoices_are_paid_through_a_hub_to_the_millisatoshi(net: &mut Cluster) {
    line(net, &NAMES, FUNDS_SAT, CAPACITY_SAT).await;
    let (mut moved, mut fees) = (0, 0);
    // The smallest there is, an odd one, and most of the channel; then the payer chooses.
    let cases = [
        (Some(1), None),
        (Some(1_000_001), None),
        (Some(4_000_000_000), None),
        (None, Some(7_777)),
    ];
    for (asked, given) in cases {
        let amount_msat = asked.or(given).unwrap();
        let invoice = invoice(net, "bob", asked).await;
        let sent = paid(net, "alice", &invoice.invoice, given).await;
        let fee_msat = hub_fee(amount_msat);
        assert_eq!((sent.amount_msat, sent.fee_msat), (amount_msat, fee_msat));
        assert_eq!(sent.preimage.unwrap().hash(), invoice.hash);
        assert_eq!((sent.hash, sent.kind), (Some(invoice.hash), PaymentKind::Bolt11));
        let taken = received(net, "bob", invoice.hash.inbound_id(), PaymentState::Succeeded).await;
        assert_eq!((taken.amount_msat, taken.hash), (amount_msat, Some(invoice.hash)));
        assert_eq!(invoice_state(net, "bob", invoice.hash).await, InvoiceState::Settled);
        moved += amount_msat;
        fees += fee_msat;
        assert_moved(net, moved, fees).await;
    }
    conserved(net).await;
}

/// BOLT 11's own example of a donation, on mainnet.
const MAINNET: &str = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";

pub async fn what_cannot_be_paid_is_refused_and_leaves_no_trace(net: &mut Cluster) {
    line(net, &NAMES, FUNDS_SAT, CAPACITY_SAT).await;
    let refuse = |text: &str, amount_msat| {
        net.node("alice")
            .payments
            .pay(&pay_request(text, amount_msat), None)
            .map(|_| ())
            .unwrap_err()
    };
    let asked = invoice(net, "bob", Some(5_000)).await.invoice;
    let open = invoice(net, "bob", None).await.invoice;

    for text in ["", "tea for two", "lnbcrt1", &asked[..asked.len() - 1], &asked.replace('q', "p")]
    {
        let error = refuse(text, None);
        assert!(matches!(error, PayError::Decode(DecodeError::Invoice(_))), "{text}: {error}");
    }
    let error = refuse("lno1pqqqqqq", None);
    assert!(matches!(error, PayError::Decode(DecodeError::Offer(_))), "{error}");
    let error = refuse(MAINNET, Some(1_000));
    assert!(matches!(error, PayError::WrongNetwork { ours: bitcoin::Network::Regtest }), "{error}");
    assert!(matches!(refuse(&open, Some(0)), PayError::ZeroAmount));
    assert!(matches!(refuse(&open, None), PayError::AmountMissing));
    assert!(matches!(
        refuse(&asked, Some(4_999)),
        PayError::AmountMismatch { asked_msat: 5_000, given_msat: 4_999 }
    ));
    assert!(matches!(refuse(&open, Some(u64::MAX)), PayError::AmountTooHigh { .. }));
    let error = refuse(&open, Some(CAPACITY_MSAT));
    let PayError::InsufficientBalance { amount_msat, spendable_msat } = &error else {
        panic!("{error}");
    };
    assert!(*amount_msat == CAPACITY_MSAT && *spendable_msat < CAPACITY_MSAT);
    let own = invoice(net, "alice", Some(5_000)).await.invoice;
    assert!(matches!(refuse(&own, None), PayError::PaysItself));

    let soon = create(net, Some(5_000), Duration::from_secs(1)).await.unwrap();
    while invoice_state(net, "bob", soon.hash).await != InvoiceState::Expired {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(refuse(&soon.invoice, None), PayError::Expired { .. }));

    let error = create(net, Some(0), Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, CreateInvoiceError::ZeroAmount));
    let error = create(net, None, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, CreateInvoiceError::ExpiryOutOfRange { seconds: 0 }));

    assert_eq!(payments(net, "alice").await, vec![]);
    assert_eq!(payments(net, "bob").await, vec![]);
    assert_moved(net, 0, 0).await;
    conserved(net).await;
}

async fn create(
    net: &Cluster,
    amount_msat: Option<u64>,
    expiry: Duration,
) -> Result<node::payments::InvoiceRecord, CreateInvoiceError> {
    let create = CreateInvoice {
        amount_msat,
        description: InvoiceDescription::Text(String::new()),
        expiry,
        min_final_cltv_expiry_delta: None,
        hash: None,
    };
    net.node("bob").payments.create_invoice(create, None).await
}

pub async fn one_key_or_one_invoice_is_one_payment(net: &mut Cluster) {
    line(net, &NAMES, FUNDS_SAT, CAPACITY_SAT).await;
    let bill = invoice(net, "bob", Some(10_000)).await;
    let request = pay_request(&bill.invoice, None);
    let key = IdempotencyKey::new("pay", "rent").unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let payments = Arc::clone(&net.node("alice").payments);
        let (request, key) = (request.clone(), key.clone());
        calls.spawn(async move { outcome(payments.pay(&request, key.as_ref()).unwrap()).await });
    }
    let records = calls.join_all().await;
    assert!(records.iter().all(|record| record == &records[0]), "{records:?}");
    assert_eq!(records[0].state, PaymentState::Succeeded);
    assert_eq!(payments(net, "alice").await, vec![records[0].clone()]);
    assert_moved(net, 10_000, hub_fee(10_000)).await;

    // The answer is the same for good; another request under the key is refused.
    let again = net.node("alice").payments.pay(&request, key.as_ref()).unwrap();
    assert_eq!(outcome(again).await, records[0]);
    let other = pay_request(&bill.invoice, Some(10_001));
    let refused = net.node("alice").payments.pay(&other, key.as_ref()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, PayError::Idempotency(IdempotencyError::Conflict { .. })));

    // Without a key the hash keeps an invoice from being paid twice, also at once.
    let refused = net.node("alice").payments.pay(&request, None).map(|_| ()).unwrap_err();
    assert!(matches!(
        refused,
        PayError::AlreadyPaid { hash, id } if hash == bill.hash && id == records[0].id
    ));
    let second = invoice(net, "bob", Some(20_000)).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let payments = Arc::clone(&net.node("alice").payments);
        let request = pay_request(&second.invoice, None);
        calls.spawn(async move {
            match payments.pay(&request, None) {
                Ok(watch) => Some(outcome(watch).await.state),
                Err(PayError::AlreadyPaid { .. }) => None,
                Err(other) => panic!("{other}"),
            }
        });
    }
    let outcomes: Vec<PaymentState> = calls.join_all().await.into_iter().flatten().collect();
    assert_eq!(outcomes, [PaymentState::Succeeded]);
    assert_moved(net, 30_000, hub_fee(10_000) + hub_fee(20_000)).await;
    assert_eq!(payments(net, "bob").await.len(), 2);
    conserved(net).await;
}

pub async fn offers_are_paid_again_and_again(net: &mut Cluster) {
    line(net, &NAMES, FUNDS_SAT, CAPACITY_SAT).await;
    let bob = &net.node("bob").payments;
    let offer = |amount_msat, what: &str| CreateOffer {
        amount_msat,
        description: Some(what.into()),
        expiry: None,
    };
    let fixed = bob.create_offer(offer(Some(40_000), "tea"), None).await.unwrap();
    let open = bob.create_offer(offer(None, "tips"), None).await.unwrap();
    let (mut moved, mut fees) = (0, 0);
    for (offer, given, amount_msat) in
        [(&fixed, None, 40_000), (&fixed, None, 40_000), (&open, Some(123_457), 123_457)]
    {
        let sent = paid(net, "alice", &offer.decoded.text, given).await;
        assert_eq!((sent.kind, sent.amount_msat), (PaymentKind::Bolt12, amount_msat));
        let hash = sent.hash.unwrap();
        let taken = received(net, "bob", hash.inbound_id(), PaymentState::Succeeded).await;
        // A blinded path may let the receiver collect what rounding left over.
        assert!(taken.amount_msat >= amount_msat);
        moved += taken.amount_msat;
        fees += sent.amount_msat + sent.fee_msat - taken.amount_msat;
        assert_moved(net, moved, fees).await;
    }
    let hashes: std::collections::BTreeSet<_> =
        payments(net, "alice").await.into_iter().map(|record| record.hash.unwrap().0).collect();
    assert_eq!(hashes.len(), 3, "each payment of an offer has an invoice of its own");
    conserved(net).await;
}

pub async fn spontaneous_payments_are_taken(net: &mut Cluster) {
    for name in NAMES {
        net.add(name, NodeOptions::default()).await.unwrap();
    }
    net.fund(&NAMES, Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    // Nobody hints the way to a receiver that asked for nothing: its channel must be public.
    net.open_channel("alice", "hub", CAPACITY_SAT, 0).await.unwrap();
    open_announced(net, "hub", "bob").await;
    let (mut moved, mut fees) = (0, 0);
    for (payee, amount_msat) in [("hub", 3_000), ("bob", 50_001)] {
        let keysend = PayRequest {
            target: PayTarget::Keysend {
                payee: net.node(payee).lightning.node_id(),
                records: vec![(65_537, b"hello".to_vec())],
            },
            amount_msat: Some(amount_msat),
            max_fee_msat: None,
            retry_for: None,
            max_parts: Some(1),
            payer_note: None,
        };
        // Gossip takes its time: until the way is known, payments fail and cost nothing.
        let deadline = tokio::time::Instant::now() + WAIT;
        let sent = loop {
            let record = pay(net, "alice", &keysend).await;
            if record.state == PaymentState::Succeeded {
                break record;
            }
            assert!(tokio::time::Instant::now() < deadline, "{record:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert_eq!((sent.kind, sent.amount_msat), (PaymentKind::Keysend, amount_msat));
        let id = sent.hash.unwrap().inbound_id();
        let taken = received(net, payee, id, PaymentState::Succeeded).await;
        assert_eq!((taken.kind, taken.amount_msat), (PaymentKind::Keysend, amount_msat));
        assert_eq!((sent.parts, taken.parts), (1, 1));
        moved += amount_msat;
        fees += sent.fee_msat;
    }
    assert_eq!(fees, hub_fee(50_001));
    settled(net).await;
    assert_eq!(channel_balance(net, "alice", "hub"), CAPACITY_MSAT - moved - fees);
    assert_eq!(channel_balance(net, "bob", "hub"), 50_001);
    conserved(net).await;
}

async fn open_announced(net: &Cluster, from: &str, to: &str) {
    let peer = net.node(to).lightning.node_id();
    let address = net.get(to).unwrap().address();
    let mut request = open_request(peer, Some(address), CAPACITY_SAT);
    request.announced = true;
    let channels = &net.node(from).channels;
    let channel = channels.request_open(request, None).await.unwrap().record.channel;
    net.wait_channel(from, channel, "funded channel", |view| {
        view.record.state == ChannelState::AwaitingConfirmation
    })
    .await
    .unwrap();
    let funding = channels.get(channel).unwrap().record.funding.unwrap().txid;
    while !net.chain.knows(funding).await.unwrap() {
        tokio::task::yield_now().await;
    }
    // BOLT 7: announced at six confirmations.
    net.mine(6).await.unwrap();
    net.wait_channel(from, channel, "usable channel", |view| {
        view.live.as_ref().is_some_and(|live| live.usable)
    })
    .await
    .unwrap();
}

/// More payments at once than a channel carries: nobody is turned away, all wait their turn.
pub async fn payments_beyond_a_channels_slots_wait_in_line(net: &mut Cluster) {
    const AT_ONCE: u64 = 300;
    line(net, &["alice", "bob"], FUNDS_SAT, CAPACITY_SAT).await;
    let payee = net.node("bob").lightning.node_id();
    let mut outcomes = Vec::new();
    for number in 0..AT_ONCE {
        let request = PayRequest {
            target: PayTarget::Keysend { payee, records: Vec::new() },
            amount_msat: Some(1_000 + number),
            max_fee_msat: None,
            retry_for: None,
            max_parts: Some(1),
            payer_note: None,
        };
        outcomes.push(net.node("alice").payments.pay(&request, None).unwrap());
    }
    let mut moved = 0;
    for mut watch in outcomes {
        let record = watch.outcome().await.unwrap();
        assert_eq!(record.state, PaymentState::Succeeded, "{record:?}");
        moved += record.amount_msat;
    }
    assert_eq!(moved, (0..AT_ONCE).map(|number| 1_000 + number).sum::<u64>());
    settled(net).await;
    assert_eq!(channel_balance(net, "bob", "alice"), moved);
    conserved(net).await;
}

pub async fn a_payment_is_split_over_channels(net: &mut Cluster) {
    const PART_SAT: u64 = 500_000;
    line(net, &NAMES, FUNDS_SAT, PART_SAT).await;
    net.open_channel("alice", "hub", PART_SAT, 0).await.unwrap();
    net.open_channel("hub", "bob", PART_SAT, 0).await.unwrap();
    let amount_msat = 800_000_000;
    let invoice = invoice(net, "bob", Some(amount_msat)).await;
    // No channel carries it whole.
    let mut whole = pay_request(&invoice.invoice, None);
    whole.max_parts = Some(1);
    whole.retry_for = Some(Duration::ZERO);
    let failed = pay(net, "alice", &whole).await;
    assert_eq!(
        (failed.state, failed.failure),
        (PaymentState::Failed, Some(FailureReason::RouteNotFound))
    );
    let sent = paid(net, "alice", &invoice.invoice, None).await;
    let taken = received(net, "bob", invoice.hash.inbound_id(), PaymentState::Succeeded).await;
    assert_eq!((sent.amount_msat, taken.amount_msat), (amount_msat, amount_msat));
    assert!(sent.parts >= 2, "{sent:?}");
    assert_eq!((failed.parts, taken.parts), (0, sent.parts));
    // Each part's fee is rounded down by itself.
    assert!((hub_fee(amount_msat) - 16..=hub_fee(amount_msat)).contains(&sent.fee_msat));
    settled(net).await;
    let both = 2 * PART_SAT * 1_000;
    assert_eq!(channel_balance(net, "alice", "hub"), both - amount_msat - sent.fee_msat);
    assert_eq!(channel_balance(net, "hub", "alice"), amount_msat + sent.fee_msat);
    assert_eq!(channel_balance(net, "bob", "hub"), amount_msat);
    let parts = net.node("bob").lightning.channels();
    assert!(parts.iter().all(|channel| channel.local_msat > 0), "both channels were needed");
    conserved(net).await;
}
