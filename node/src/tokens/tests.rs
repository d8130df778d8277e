//! Chains, rights, budgets against a simple model, and what a power cut leaves of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::environment::{Clock, OsEntropy};
use crate::journal::{IdempotencyKey, Journal};
use crate::lightning::types::PaymentId;
use crate::store::{Batch, Committer, DiskFault, MemoryDisk, PowerCut};

const SECRET: [u8; 32] = [7; 32];

#[derive(Default)]
struct At(Mutex<u64>);

impl Clock for At {
    fn now(&self) -> Duration {
        Duration::from_secs(*self.0.lock())
    }
}

fn tokens(committer: &Committer, clock: &Arc<At>) -> Tokens {
    Tokens::open(TokenParts {
        secret: Zeroizing::new(SECRET),
        committer: committer.clone(),
        journal: Journal::open(committer.clone(), Arc::clone(clock) as Arc<dyn Clock>).unwrap(),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy: Arc::new(OsEntropy),
    })
    .unwrap()
}

fn committer(disk: &MemoryDisk) -> Committer {
    Committer::new(Arc::new(disk.open()))
}

/// A service whose writes are made durable by a thread.
fn served() -> (Arc<Tokens>, Arc<At>, Committer) {
    let committer = committer(&MemoryDisk::new());
    let _runs_until_the_test_ends = committer.run_thread().unwrap();
    let clock = Arc::new(At::default());
    (Arc::new(tokens(&committer, &clock)), clock, committer)
}

fn budget(msat: u64) -> Restriction {
    Restriction::Budget { msat, nonce: [0; 8] }
}

fn all_kinds() -> Vec<Restriction> {
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
    let node = key.public_key(&bitcoin::secp256k1::Secp256k1::new());
    vec![
        Restriction::Role(Role::Payer),
        Restriction::Methods(vec!["Payments/*".parse().unwrap(), "Node/GetInfo".parse().unwrap()]),
        Restriction::PerCall(5_000),
        budget(100_000),
        Restriction::Payees(vec![node]),
        Restriction::Expires(1_000),
        Restriction::Sources(vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]),
    ]
}

fn baked(restrictions: Vec<Restriction>) -> Token {
    Token::bake(&SECRET, TokenId([1; 16]), restrictions).unwrap()
}

#[test]
fn a_token_reads_back_as_it_was_written() {
    let token = baked(all_kinds());
    let read = Token::parse(&token.reveal()).unwrap();
    assert_eq!(read.restrictions(), all_kinds());
    assert_eq!(read.id(), token.id());
    assert_eq!(read.links(&SECRET).unwrap().len(), all_kinds().len() + 1);
    assert_eq!(read.links(&[8; 32]), None, "another node's secret");
    assert!(!format!("{read:?}").contains(&token.reveal()[PREFIX.len() + 30..]));
}

/// Source: the format's description in `token.rs`, computed with Python's `hmac`.
#[test]
fn the_format_is_stable() {
    let token = baked(vec![Restriction::PerCall(5_000)]);
    let text = token.reveal();
    assert_eq!(
        *text,
        "trbt1_AQEBAQEBAQEBAQEBAQEBAQMACAAAAAAAABOIyl4xMfMqDtwdnBIFzXSZG1AaUWg4hhE2yEjhOTEcRzg"
    );
    assert_eq!(
        token.last_link().to_string(),
        "e8c5dc76403237583b60f88620c05759",
        "accounts and revocations are kept under this name"
    );
}

#[test]
fn a_restriction_is_added_without_the_secret_and_never_taken_off() {
    let wide = baked(vec![]);
    let narrow = wide.clone().narrowed(Restriction::Role(Role::ReadOnly)).unwrap();
    assert!(narrow.links(&SECRET).is_some());
    assert_eq!(narrow.links(&SECRET).unwrap()[0], wide.last_link());
    // Cut off the restriction and keep the tag, or change anything.
    let text = narrow.reveal();
    let engine = URL_SAFE_NO_PAD;
    let bytes = engine.decode(&text[PREFIX.len()..]).unwrap();
    let without = [&bytes[..16], &bytes[bytes.len() - 32..]].concat();
    let forged = Token::parse(&format!("{PREFIX}{}", engine.encode(without))).unwrap();
    assert_eq!(forged.restrictions(), []);
    assert_eq!(forged.links(&SECRET), None);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let text = format!("{PREFIX}{}", engine.encode(&changed));
        let opens = Token::parse(&text).is_ok_and(|token| token.links(&SECRET).is_some());
        assert!(!opens, "byte {at} can be changed");
    }
}

#[test]
fn odd_texts_are_refused_by_what_is_wrong() {
    assert_eq!(Token::parse("hello").unwrap_err(), ParseTokenError::Prefix);
    assert_eq!(Token::parse("trbt1_%%").unwrap_err(), ParseTokenError::Base64);
    assert!(matches!(Token::parse("trbt1_AAAA"), Err(ParseTokenError::Length { .. })));
    let long = format!("{PREFIX}{}", "A".repeat(100_000));
    assert!(matches!(Token::parse(&long), Err(ParseTokenError::Length { .. })));
    let mut token = baked(vec![]);
    for _ in 0..64 {
        token = token.narrowed(Restriction::PerCall(1)).unwrap();
    }
    assert_eq!(token.narrowed(Restriction::PerCall(1)).unwrap_err(), ParseTokenError::TooMany);
    for bad in ["", "/", "Payments", "Payments/", "/Pay", "a b/c", "Payments/P y", "*/*"] {
        assert!(bad.parse::<MethodPattern>().is_err(), "{bad}");
    }
    for bad in ["", "10.0.0.0/33", "::1/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/"] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
    assert!("root".parse::<Role>().is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
        if let Ok(token) = Token::parse(&text) {
            prop_assert_eq!(&*token.reveal(), &text);
            prop_assert!(token.links(&SECRET).is_none());
        }
    }
}

#[test]
fn ranges_of_addresses_count_their_first_bits() {
    let range = |text: &str| text.parse::<Cidr>().unwrap();
    let has = |range: Cidr, ip: &str| range.contains(ip.parse().unwrap());
    assert!(has(range("10.1.2.3/8"), "10.255.0.1"));
    assert!(!has(range("10.0.0.0/8"), "11.0.0.1"));
    assert!(has(range("127.0.0.1"), "127.0.0.1") && !has(range("127.0.0.1"), "127.0.0.2"));
    assert!(has(range("127.0.0.1"), "::ffff:127.0.0.1"), "IPv4 that came over IPv6");
    assert!(has(range("0.0.0.0/0"), "8.8.8.8") && !has(range("0.0.0.0/0"), "::1"));
    assert!(has(range("2001:db8::/32"), "2001:db8:1::2") && has(range("::/0"), "::1"));
    assert!(!has(range("2001:db8::/32"), "2001:db9::2"));
}

#[test]
fn roles_have_what_their_names_say() {
    let of = |role: Role, method: &str| role.has(&format!("tributary.v1.{method}"));
    for role in Role::ALL {
        assert_eq!(role.name().parse(), Ok(role));
        assert_eq!(of(role, "Tokens/BakeToken"), role == Role::Admin, "{role:?}");
        assert_eq!(of(role, "Payments/Pay"), matches!(role, Role::Admin | Role::Payer));
        let receives = matches!(role, Role::Admin | Role::Operator | Role::Receiver);
        assert_eq!(of(role, "Payments/CreateInvoice"), receives, "{role:?}");
        let opens = matches!(role, Role::Admin | Role::Operator);
        assert_eq!(of(role, "Channels/Open"), opens, "{role:?}");
        assert!(of(role, "Node/GetInfo"));
        let sees_all = matches!(role, Role::Admin | Role::Operator | Role::Auditor);
        assert_eq!(of(role, "Events/Subscribe"), sees_all, "{role:?}");
        assert_eq!(of(role, "Payments/ExportPayments"), sees_all, "{role:?}");
    }
    assert!(of(Role::ReadOnly, "Channels/List") && !of(Role::ReadOnly, "Node/Stop"));
    assert!(!Role::Payer.has("nonsense"));
}

#[tokio::test]
async fn a_token_is_baked_once_per_key_and_opens_until_it_is_revoked() {
    let (tokens, clock, _) = served();
    let key = IdempotencyKey::new("BakeToken", "k").unwrap();
    let role = vec![Restriction::Role(Role::ReadOnly)];
    let first = tokens.bake("grafana", role.clone(), key.as_ref()).await.unwrap();
    let again = tokens.bake("grafana", role.clone(), key.as_ref()).await.unwrap();
    assert_eq!(*first.token.reveal(), *again.token.reveal());
    let other = tokens.bake("other", role.clone(), key.as_ref()).await;
    assert!(matches!(other, Err(BakeError::Idempotency(_))));
    assert_eq!(tokens.list(None, 10).unwrap(), std::slice::from_ref(&first.view));

    let text = first.token.reveal();
    let holder = tokens.check(&text, None).unwrap();
    assert!(holder.may_call("tributary.v1.Node/GetInfo"));
    assert!(!holder.may_call("tributary.v1.Node/Stop"));
    assert!(holder.purse().is_none() && !holder.is_unrestricted());

    let narrow = first.token.clone().narrowed(Restriction::Expires(50)).unwrap();
    assert!(tokens.check(&narrow.reveal(), None).is_ok());
    *clock.0.lock() = 60;
    let refusal = tokens.check(&narrow.reveal(), None).unwrap_err();
    assert_eq!(refusal, TokenRefusal::Expired { id: first.view.id, seconds: 10 });
    assert!(tokens.check(&text, None).is_ok());

    let mut told = tokens.revocations();
    tokens.revoke(&Revoking::Baked(first.view.id)).await.unwrap();
    assert!(told.has_changed().unwrap());
    told.mark_unchanged();
    assert_eq!(tokens.check(&text, None).unwrap_err(), TokenRefusal::Revoked(first.view.id));
    assert_eq!(tokens.is_over(&holder), Some(TokenRefusal::Revoked(first.view.id)));
    assert_eq!(tokens.list(None, 10).unwrap()[0].revoked_ms, Some(60_000));
    let unknown = tokens.revoke(&Revoking::Baked(TokenId([9; 16]))).await;
    assert!(matches!(unknown, Err(RevokeError::Unknown(_))));
}

#[tokio::test]
async fn a_narrowed_token_is_revoked_alone_with_what_came_of_it() {
    let (tokens, clock, committer) = served();
    let wide = tokens.bake("wide", vec![], None).await.unwrap();
    let narrow = wide.token.clone().narrowed(Restriction::PerCall(5)).unwrap();
    let narrower = narrow.clone().narrowed(Restriction::PerCall(4)).unwrap();
    let sibling = wide.token.clone().narrowed(Restriction::PerCall(6)).unwrap();
    tokens.revoke(&Revoking::Text(narrow.reveal())).await.unwrap();
    let refused = TokenRefusal::Revoked(wide.view.id);
    let after_a_restart = self::tokens(&committer, &clock);
    for tokens in [&*tokens, &after_a_restart] {
        assert_eq!(tokens.check(&narrow.reveal(), None).unwrap_err(), refused);
        assert_eq!(tokens.check(&narrower.reveal(), None).unwrap_err(), refused);
        assert!(tokens.check(&sibling.reveal(), None).is_ok());
        assert!(tokens.check(&wide.token.reveal(), None).unwrap().is_unrestricted());
    }
    let foreign = Token::bake(&[9; 32], wide.view.id, vec![]).unwrap();
    let foreign = tokens.revoke(&Revoking::Text(foreign.reveal())).await;
    assert!(matches!(foreign, Err(RevokeError::NotOurs)));
}

#[tokio::test]
async fn a_token_opens_from_its_addresses_alone() {
    let (tokens, _, _) = served();
    let sources = Restriction::Sources(vec!["10.0.0.0/8".parse().unwrap()]);
    let baked = tokens.bake("lan", vec![sources], None).await.unwrap();
    let text = baked.token.reveal();
    assert!(tokens.check(&text, Some("10.1.1.1".parse().unwrap())).is_ok());
    for source_ip in [None, Some("192.168.0.1".parse().unwrap())] {
        let refusal = tokens.check(&text, source_ip).unwrap_err();
        assert_eq!(refusal, TokenRefusal::Source { id: baked.view.id, source_ip });
    }
}

#[tokio::test]
async fn a_budget_of_a_narrowed_token_counts_in_both() {
    let (tokens, _, committer) = served();
    let wide = tokens.bake("wide", vec![budget(100)], None).await.unwrap();
    let narrow = wide.token.clone().narrowed(budget(30)).unwrap();
    let purse = |token: &Token| {
        let holder = tokens.check(&token.reveal(), None).unwrap();
        holder.purse().cloned().unwrap()
    };
    let pay = |purse: &Purse, byte, msat| {
        let mut batch = Batch::default();
        let subject = Subject::Payment(PaymentId([byte; 32]));
        let held = purse.reserve(subject, None, msat, &mut batch)?;
        let _ticket = committer.enqueue(batch);
        drop(held);
        Ok::<_, SpendingError>(())
    };
    pay(&purse(&narrow), 1, 30).unwrap();
    let refused = pay(&purse(&narrow), 2, 1).unwrap_err();
    assert_eq!(refused, SpendingError::Budget { most_msat: 1, left_msat: 0, budget_msat: 30 });
    let refused = pay(&purse(&wide.token), 3, 71).unwrap_err();
    assert_eq!(refused, SpendingError::Budget { most_msat: 71, left_msat: 70, budget_msat: 100 });
    pay(&purse(&wide.token), 4, 70).unwrap();
    // The first one fails: both budgets have it back.
    let mut batch = Batch::default();
    drop(tokens.ledger().settle(Subject::Payment(PaymentId([1; 32])), Some(0), &mut batch));
    pay(&purse(&narrow), 5, 30).unwrap();
    let (_, account) = tokens.list(None, 1).unwrap()[0].budget.unwrap();
    assert_eq!((account.spent_msat, account.reserved_msat), (0, 100));
}

/// What a caller asks of a budget.
#[derive(Debug, Clone)]
enum Ask {
    Reserve(u8, u64),
    Spend(u64),
    Lower(u8, u64),
    /// The share of what was set aside that it cost, in 256ths; `None` for all.
    Settle(u8, Option<u8>),
}

fn ask() -> impl Strategy<Value = Ask> {
    let msat = prop_oneof![0..2_000_u64, Just(u64::MAX), Just(u64::MAX - 1)];
    prop_oneof![
        (any::<u8>(), msat.clone()).prop_map(|(id, msat)| Ask::Reserve(id % 8, msat)),
        msat.clone().prop_map(Ask::Spend),
        (any::<u8>(), msat).prop_map(|(id, msat)| Ask::Lower(id % 8, msat)),
        (any::<u8>(), any::<Option<u8>>()).prop_map(|(id, cost)| Ask::Settle(id % 8, cost)),
    ]
}

proptest! {
    /// Against a model that keeps a list: never a msat above the budget, and none lost.
    #[test]
    fn a_budget_is_exact(
        budget_msat in prop_oneof![0..5_000_u64, Just(u64::MAX)],
        asks in proptest::collection::vec(ask(), 1..60),
    ) {
        let committer = committer(&MemoryDisk::new());
        let ledger = Arc::new(Ledger::open(&committer).unwrap());
        let account = LinkId([1; 16]);
        let purse = Purse {
            ledger: Arc::clone(&ledger),
            budgets: vec![(account, budget_msat)],
            per_call_msat: None,
            payees: Vec::new(),
        };
        let subject = |id: u8| Subject::Payment(PaymentId([id; 32]));
        let (mut spent, mut open) = (0_u128, BTreeMap::<u8, u64>::new());
        for ask in asks {
            let mut batch = Batch::default();
            let taken = spent + open.values().map(|msat| u128::from(*msat)).sum::<u128>();
            let fits = |msat: u64| taken + u128::from(msat) <= u128::from(budget_msat);
            match ask {
                // Ids of payments are fresh each time.
                Ask::Reserve(id, msat) if !open.contains_key(&id) => {
                    let reserved = purse.reserve(subject(id), None, msat, &mut batch);
                    prop_assert_eq!(reserved.is_ok(), fits(msat));
                    if fits(msat) {
                        open.insert(id, msat);
                    }
                }
                Ask::Reserve(..) => {}
                Ask::Spend(msat) => {
                    let done = purse.spend(None, msat, &mut batch).is_ok();
                    prop_assert_eq!(done, fits(msat));
                    if done {
                        spent += u128::from(msat);
                    }
                }
                Ask::Lower(id, msat) => {
                    drop(ledger.lower(subject(id), msat, &mut batch));
                    if let Some(open) = open.get_mut(&id) {
                        *open = (*open).min(msat);
                    }
                }
                Ask::Settle(id, share) => {
                    let set_aside = open.remove(&id);
                    let share = |msat: u64| {
                        share.map(|share| (u128::from(msat) * u128::from(share) / 255) as u64)
                    };
                    let cost = set_aside.map_or(Some(0), share);
                    drop(ledger.settle(subject(id), cost, &mut batch));
                    if let Some(msat) = set_aside {
                        spent += u128::from(cost.unwrap_or(msat));
                    }
                }
            }
            let _pending = committer.enqueue(batch);
            let now = ledger.account(account);
            let reserved: u128 = open.values().map(|msat| u128::from(*msat)).sum();
            prop_assert_eq!(u128::from(now.spent_msat), spent);
            prop_assert_eq!(u128::from(now.reserved_msat), reserved);
            prop_assert!(spent + reserved <= u128::from(budget_msat));
            // What is written is what is in memory.
            let read = Ledger::open(&committer).unwrap();
            prop_assert_eq!(read.account(account), now);
            prop_assert_eq!(
                read.reserved_msat(subject(0)),
                ledger.reserved_msat(subject(0))
            );
        }
    }
}

/// Many at once, and the disk's power goes at each commit: what is on disk is what was taken by
/// those whose batch is there, to the millisatoshi.
#[test]
fn threads_and_power_cuts_leave_the_accounts_as_the_payments() {
    const EACH: u64 = 7;
    for cut in 1..=12 {
        let disk = MemoryDisk::new();
        let before = committer(&disk);
        let thread = before.run_thread().unwrap();
        let ledger = Arc::new(Ledger::open(&before).unwrap());
        let account = LinkId([1; 16]);
        let purse = Purse {
            ledger: Arc::clone(&ledger),
            budgets: vec![(account, 500)],
            per_call_msat: None,
            payees: Vec::new(),
        };
        disk.fault_at(disk.commits() + cut, DiskFault::FailSync);
        std::thread::scope(|scope| {
            for worker in 0..8_u8 {
                let (purse, committer, ledger) = (purse.clone(), before.clone(), &ledger);
                scope.spawn(move || {
                    for number in 0..20_u8 {
                        let subject = Subject::Payment(PaymentId([worker * 20 + number; 32]));
                        let mut batch = Batch::default();
                        let Ok(held) = purse.reserve(subject, None, EACH, &mut batch) else {
                            continue;
                        };
                        // The payment's own record, in the same batch.
                        batch.put(vec![b'!', worker * 20 + number], vec![0]);
                        let _ticket = committer.enqueue(batch);
                        drop(held);
                        committer.kick();
                        if number % 2 == 0 {
                            let mut batch = Batch::default();
                            let held = ledger.settle(subject, Some(3), &mut batch);
                            batch.put(vec![b'!', worker * 20 + number], vec![1]);
                            let _ticket = committer.enqueue(batch);
                            drop(held);
                        }
                    }
                });
            }
        });
        before.stop();
        let _ended = thread.join();
        disk.cut_power(PowerCut { kept: (cut % 2) as usize, torn_writes: 0 });
        let after = committer(&disk);
        let records = after.scan(b"!", &[b'!' + 1], 1_000).unwrap();
        let open = records.iter().filter(|(_, value)| value == &[0]).count() as u64;
        let done = records.iter().filter(|(_, value)| value == &[1]).count() as u64;
        let read = Ledger::open(&after).unwrap().account(account);
        assert_eq!(read, Account { spent_msat: 3 * done, reserved_msat: EACH * open }, "cut {cut}");
        assert!(read.spent_msat + read.reserved_msat <= 500);
    }
}
