//! Judging, with a world that is made up.

use std::collections::BTreeMap;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

use super::*;
use crate::payouts::schedule::{Period, Recurrence};

const NOW: Duration = Duration::from_secs(1_000_000);
const ADDRESS: &str = "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6";
const OWN_ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

fn node(byte: u8) -> NodeId {
    let key = SecretKey::from_slice(&[byte; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::signing_only(), &key)
}

/// A world in which a request says what its text says: `lnbcrt:hash:amount`.
#[derive(Default)]
struct Made {
    requests: BTreeMap<String, Decoded>,
    paid: Vec<PaymentHash>,
}

impl Made {
    fn invoice(&mut self, text: &str, hash: u8, amount_msat: Option<u64>) -> &mut Decoded {
        let decoded = Decoded {
            kind: if text.starts_with("lno1") { DecodedKind::Offer } else { DecodedKind::Invoice },
            text: text.to_owned(),
            payee: Some(node(7)),
            amount_msat,
            hash: Some(PaymentHash([hash; 32])).filter(|_| !text.starts_with("lno1")),
            description: None,
            description_hash: None,
            networks: Vec::new(),
            on_our_network: true,
            issuer: None,
            offer_id: None,
            paths: 0,
            created: None,
            expires: Some(NOW + Duration::from_secs(60)),
            min_final_cltv_expiry_delta: None,
        };
        self.requests.entry(text.to_owned()).or_insert(decoded)
    }
}

impl World for Made {
    fn now(&self) -> Duration {
        NOW
    }

    fn network(&self) -> Network {
        Network::Regtest
    }

    fn node_id(&self) -> NodeId {
        node(1)
    }

    fn decode(&self, text: &str) -> Result<Decoded, DecodeError> {
        self.requests.get(text).cloned().ok_or_else(|| DecodeError::Invoice("no such".into()))
    }

    fn is_paid(&self, hash: PaymentHash) -> Result<bool, StoreError> {
        Ok(self.paid.contains(&hash))
    }

    fn owns(&self, script: &Script) -> bool {
        let own: Address<NetworkUnchecked> = OWN_ADDRESS.parse().unwrap();
        own.assume_checked().script_pubkey() == *script
    }

    fn default_fee_msat(&self, amount_msat: u64) -> u64 {
        amount_msat / 100
    }
}

fn settings() -> Settings {
    Settings {
        name: String::new(),
        max_total_msat: None,
        max_line_msat: None,
        max_line_fee_msat: None,
        concurrency: 1,
        feerate_sat_per_vb: None,
        time_limit_seconds: 1,
        not_before_ms: None,
        recurrence: None,
    }
}

fn pays(target: &str, amount_msat: impl Into<Option<u64>>) -> Row {
    Row { target: target.to_owned(), amount_msat: amount_msat.into(), ..Row::default() }
}

fn reasons(rows: Vec<Row>, settings: &Settings, world: &Made) -> Vec<Option<LineReason>> {
    let (lines, quote) = judge(rows, settings, world).unwrap();
    let bad = lines.iter().filter(|line| line.state == LineState::Bad).count();
    assert_eq!((quote.bad_lines as usize, quote.good_lines as usize), (bad, lines.len() - bad));
    assert!(lines.iter().all(|line| (line.state == LineState::Bad) != line.detail.is_empty()));
    lines.iter().map(|line| line.reason).collect()
}

#[test]
fn each_bad_line_has_its_reason() {
    use LineReason as R;
    let mut world = Made::default();
    world.invoice("lnbcrt-good", 1, Some(5_000));
    world.invoice("lnbcrt-twin", 1, Some(5_000));
    world.invoice("lnbcrt-paid", 2, Some(5_000));
    world.paid.push(PaymentHash([2; 32]));
    world.invoice("lnbcrt-open", 3, None);
    world.invoice("lnbcrt-old", 4, Some(1)).expires = Some(NOW);
    world.invoice("lnbc-main", 5, Some(1)).on_our_network = false;
    world.invoice("lnbcrt-own", 6, Some(1)).payee = Some(node(1));
    world.invoice("lno1offer", 0, None);
    let note = |target: &str, amount| Row { note: "hi".to_owned(), ..pays(target, amount) };
    let fault = Row { fault: Some("has 1 field".to_owned()), ..pays("lnbcrt-good", None) };
    let key = node(9).to_string();
    let table = [
        (pays("lnbcrt-good", None), None),
        (pays("lnbcrt-twin", None), Some(R::Duplicate)),
        (pays("lnbcrt-good", 5_000), Some(R::Duplicate)),
        (pays("lnbcrt-paid", None), Some(R::AlreadyPaid)),
        (pays("lnbcrt-open", None), Some(R::AmountMissing)),
        (pays("lnbcrt-open", 0), Some(R::AmountOutOfRange)),
        (pays("lnbcrt-open", u64::MAX), Some(R::AmountOutOfRange)),
        // A line that was bad takes no hash from one that is good.
        (pays("lnbcrt-open", 7), None),
        (pays("lnbcrt-old", None), Some(R::Expired)),
        (pays("lnbc-main", None), Some(R::WrongNetwork)),
        (pays("lnbcrt-own", None), Some(R::PaysItself)),
        (pays("lnbcrt-what", None), Some(R::Unreadable)),
        (pays("", 1), Some(R::Unreadable)),
        (pays("hello", 1), Some(R::Unreadable)),
        (fault, Some(R::Unreadable)),
        (note("lnbcrt-good", None), Some(R::NoteUnsupported)),
        (note("lno1offer", Some(9)), None),
        (pays("lno1offer", 9), None),
        (pays(&key, 1), None),
        (pays(&key.to_uppercase(), 1), None),
        (pays(&key, None), Some(R::AmountMissing)),
        (pays(&node(1).to_string(), 1), Some(R::PaysItself)),
        (pays(&"05".repeat(33), 1), Some(R::Unreadable)),
        (pays(ADDRESS, 330_000), None),
        (pays(ADDRESS, 329_000), Some(R::Dust)),
        (pays(ADDRESS, 330_001), Some(R::AmountOutOfRange)),
        (pays(OWN_ADDRESS, 1_000_000), Some(R::PaysItself)),
        (pays("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", 1_000_000), Some(R::WrongNetwork)),
        (Row { max_fee_msat: Some(u64::MAX), ..pays(&key, 1) }, Some(R::AmountOutOfRange)),
    ];
    let (rows, expected): (Vec<Row>, Vec<_>) = table.into_iter().unzip();
    assert_eq!(reasons(rows, &settings(), &world), expected);
}

#[test]
fn an_amount_that_differs_from_the_request_is_a_mistake() {
    let mut world = Made::default();
    world.invoice("lnbcrt-good", 1, Some(5_000));
    let rows = vec![pays("lnbcrt-good", 4_999), pays("lnbcrt-good", 5_000)];
    let expected = [Some(LineReason::AmountMismatch), None];
    assert_eq!(reasons(rows, &settings(), &world), expected);
}

#[test]
fn limits_hold_for_each_line_and_for_all() {
    let key = node(9).to_string();
    let limits = Settings { max_line_msat: Some(60), max_total_msat: Some(100), ..settings() };
    let rows = vec![pays(&key, 61), pays(&key, 60), pays(&key, 41), pays(&key, 40), pays(&key, 1)];
    let expected = [
        Some(LineReason::AboveLineLimit),
        None,
        Some(LineReason::AboveTotalLimit),
        None,
        Some(LineReason::AboveTotalLimit),
    ];
    assert_eq!(reasons(rows.clone(), &limits, &Made::default()), expected);
    let (_, quote) = judge(rows, &limits, &Made::default()).unwrap();
    assert_eq!(quote.total_msat, 100);
}

#[test]
fn bounds_of_fees_are_the_lines_the_payouts_or_the_nodes() {
    let key = node(9).to_string();
    let own = Row { max_fee_msat: Some(3), ..pays(&key, 1_000) };
    let rows = || vec![own.clone(), pays(&key, 1_000), pays(ADDRESS, 1_000_000)];
    let fees = |settings: &Settings| {
        let (lines, _) = judge(rows(), settings, &Made::default()).unwrap();
        lines.iter().map(|line| line.max_fee_msat).collect::<Vec<_>>()
    };
    assert_eq!(fees(&settings()), [3, 10, UNPRICED]);
    assert_eq!(fees(&Settings { max_line_fee_msat: Some(5), ..settings() }), [3, 5, 5]);
}

#[test]
fn a_schedule_takes_what_can_be_paid_again() {
    let mut world = Made::default();
    world.invoice("lnbcrt-good", 1, Some(5_000));
    world.invoice("lno1offer", 0, Some(1));
    let recurrence =
        Recurrence { period: Period::Month, runs_max: None, until_ms: None, budget_msat: 1 };
    let schedule = Settings { recurrence: Some(recurrence), ..settings() };
    let rows = vec![
        pays("lnbcrt-good", None),
        pays("lno1offer", None),
        pays(&node(9).to_string(), 1),
        pays(ADDRESS, 1_000_000),
    ];
    let expected = [Some(LineReason::NotRepeatable), None, None, None];
    assert_eq!(reasons(rows, &schedule, &world), expected);
}
