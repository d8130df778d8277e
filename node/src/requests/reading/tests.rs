//! Real invoices, offers and addresses, alone and together.

use proptest::prelude::*;

use super::*;

/// BOLT 11's example: 2,500 µBTC, expires after a minute.
const INVOICE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";
/// BOLT 11's example without an amount.
const OPEN_INVOICE: &str = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";
/// BOLT 11's example for a test network.
const TEST_INVOICE: &str = "lntb20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygshp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqfpp3x9et2e20v6pu37c5d9vax37wxq72un989qrsgqdj545axuxtnfemtpwkc45hx9d2ft7x04mt8q7y6t0k2dge9e7h8kpy9p34ytyslj3yu569aalz2xdk8xkd7ltxqld94u8h2esmsmacgpghe9k8";
/// An offer without amount or paths, of BOLT 12's example issuer.
const OFFER: &str = "lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese";
const ADDRESS: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";
const OLD_ADDRESS: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
const TEST_ADDRESS: &str = "tb1qghfhmd4zh7ncpmxl3qzhmq566jk8ckq4gafnmg";
/// When the examples of BOLT 11 were made, and a second.
const THEN: Duration = Duration::from_secs(1_496_314_659);

fn read(text: &str) -> Result<Reading, ReadError> {
    Reading::of(text, Network::Bitcoin, THEN)
}

fn kinds(reading: &Reading) -> Vec<WayKind> {
    reading.candidates().iter().map(|way| way.kind).collect()
}

#[test]
fn every_kind_of_text_is_known_by_itself() {
    for (text, source, kind) in [
        (INVOICE.to_owned(), Source::Invoice, WayKind::Bolt11),
        (format!("  LIGHTNING:{} ", INVOICE.to_uppercase()), Source::Invoice, WayKind::Bolt11),
        (format!("lightning:{OFFER}"), Source::Offer, WayKind::Bolt12),
        (OFFER.to_uppercase(), Source::Offer, WayKind::Bolt12),
        (ADDRESS.to_uppercase(), Source::Address, WayKind::OnChain),
        (OLD_ADDRESS.to_owned(), Source::Address, WayKind::OnChain),
        (format!("bitcoin:{OLD_ADDRESS}"), Source::Uri, WayKind::OnChain),
        (format!("BITCOIN:?LNO={OFFER}"), Source::Uri, WayKind::Bolt12),
    ] {
        let reading = read(&text).unwrap();
        assert_eq!((reading.source, kinds(&reading)), (source, vec![kind]), "{text}");
    }
    let alone = read(INVOICE).unwrap();
    assert_eq!(alone.asked_msat(&alone.ways[0]), Some(250_000_000));
    assert_eq!(alone.about(&alone.ways[0]).as_deref(), Some("1 cup coffee"));
    assert_eq!(alone.ways[0].text, INVOICE);
}

#[test]
fn what_is_no_request_is_told_apart() {
    assert!(matches!(read("  "), Err(ReadError::Empty)));
    assert!(matches!(read("hello"), Err(ReadError::Unknown { .. })));
    assert!(matches!(read(&INVOICE[..100]), Err(ReadError::Decode(DecodeError::Invoice(_)))));
    assert!(matches!(read(&OFFER[..40]), Err(ReadError::Decode(DecodeError::Offer(_)))));
    assert!(matches!(read("bitcoin:?amount=1"), Err(ReadError::Uri(UriError::NoWay))));
    for foreign in ["LNURL1DP68GURN8GHJ7", "lnr1qqs", "lightning:lni1qqs", "sp1qq"] {
        assert!(matches!(read(foreign), Err(ReadError::Foreign { .. })), "{foreign}");
    }
    // One letter of an address is wrong: its checksum tells.
    let typo = ADDRESS.replace("bc1qa", "bc1qq");
    assert!(matches!(read(&typo), Err(ReadError::Unknown { .. })));
}

#[test]
fn a_uri_offers_all_its_ways_the_better_ones_first() {
    let text = format!(
        "bitcoin:{OLD_ADDRESS}?amount=0.0025&lno={OFFER}&lightning={INVOICE}&message=tea%20%26%20cake&sp=sp1qq"
    );
    let reading = read(&text).unwrap();
    assert_eq!(reading.ways.len(), 4);
    assert_eq!(kinds(&reading), [WayKind::Bolt11, WayKind::Bolt12, WayKind::OnChain]);
    assert_eq!(reading.amount_sat, Some(250_000));
    for way in reading.candidates() {
        assert_eq!(reading.asked_msat(way), Some(250_000_000));
        assert_eq!(reading.about(way).as_deref(), Some("tea & cake"));
    }
    let silent = reading.ways.iter().find(|way| way.kind == WayKind::Unknown).unwrap();
    assert!(matches!(silent.problem, Some(Problem::Unsupported(_))));
}

#[test]
fn a_way_that_is_of_no_use_leaves_the_others() {
    // A future kind of invoice, or one that was cut: the address is there for that.
    let cut = read(&format!("bitcoin:{ADDRESS}?lightning=lnbc420bogusinvoice")).unwrap();
    assert_eq!(kinds(&cut), [WayKind::OnChain]);
    assert!(matches!(cut.ways[1].problem, Some(Problem::Unreadable(_))));
    let late = THEN + Duration::from_secs(100);
    let text = format!("bitcoin:{ADDRESS}?lightning={INVOICE}");
    let reading = Reading::of(&text, Network::Bitcoin, late).unwrap();
    assert_eq!(kinds(&reading), [WayKind::OnChain]);
    assert_eq!(reading.ways[1].problem, Some(Problem::Expired { seconds: 41 }));
}

#[test]
fn other_networks_are_told_by_name() {
    let foreign = |text: &str, ours| {
        let reading = Reading::of(text, ours, THEN).unwrap();
        assert!(reading.candidates().is_empty(), "{text}");
        reading.ways[0].problem.as_ref().unwrap().to_string()
    };
    let told = foreign(INVOICE, Network::Regtest);
    assert!(told.contains("for bitcoin") && told.contains("on regtest"), "{told}");
    assert!(foreign(OFFER, Network::Signet).contains("for bitcoin"));
    assert!(foreign(ADDRESS, Network::Testnet4).contains("for bitcoin"));
    let told = foreign(TEST_ADDRESS, Network::Bitcoin);
    assert!(told.contains("testnet4 or signet"), "{told}");
    // `lntb` and `tb1` are of the test network that the node knows.
    for text in [TEST_INVOICE, TEST_ADDRESS] {
        let reading = Reading::of(text, Network::Testnet4, THEN).unwrap();
        assert_eq!(reading.candidates().len(), 1, "{text}");
    }
    assert_eq!(Reading::of(TEST_ADDRESS, Network::Signet, THEN).unwrap().candidates().len(), 1);
}

#[test]
fn networks_are_not_mixed_but_under_their_own_keys() {
    let mixed = format!("bitcoin:{TEST_ADDRESS}?lightning={INVOICE}");
    for ours in [Network::Bitcoin, Network::Testnet4, Network::Regtest] {
        let error = Reading::of(&mixed, ours, THEN).unwrap_err().to_string();
        assert!(error.contains("mixes networks"), "{error}");
        assert!(error.contains("testnet4 or signet") && error.contains("for bitcoin"), "{error}");
    }
    let keyed = format!("bitcoin:?bc={ADDRESS}&tb={TEST_ADDRESS}");
    for (ours, address) in [(Network::Bitcoin, ADDRESS), (Network::Signet, TEST_ADDRESS)] {
        let reading = Reading::of(&keyed, ours, THEN).unwrap();
        let candidates = reading.candidates();
        assert_eq!((candidates.len(), &*candidates[0].text), (1, address));
    }
    let wrong = Reading::of(&keyed, Network::Regtest, THEN).unwrap();
    assert!(wrong.candidates().is_empty());
}

#[test]
fn amounts_of_uri_and_invoice_agree_to_the_satoshi() {
    let with = |amount: &str, invoice: &str| {
        read(&format!("bitcoin:{ADDRESS}?amount={amount}&lightning={invoice}"))
    };
    assert!(with("0.0025", INVOICE).is_ok());
    for amount in ["0.00250001", "0.00249999", "1"] {
        let error = with(amount, INVOICE).unwrap_err();
        assert!(matches!(error, ReadError::AmountsDiffer { way_msat: 250_000_000, .. }), "{error}");
    }
    let open = with("0.0005", OPEN_INVOICE).unwrap();
    assert_eq!(open.asked_msat(open.candidates()[0]), Some(50_000_000));
    assert!(agree(1, 1_000) && agree(1, 1_999) && agree(2, 1_999) && agree(1, 1));
    assert!(!agree(2, 1_000) && !agree(1, 2_001));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _either = read(&text);
    }

    #[test]
    fn no_cut_or_changed_text_panics(
        which in 0..5_usize,
        at in 0..400_usize,
        with in "[ -~₿]{0,3}",
    ) {
        let mut text = [INVOICE, OFFER, ADDRESS, OLD_ADDRESS, TEST_INVOICE][which].to_owned();
        let at = at.min(text.len());
        text.replace_range(at..(at + with.len()).min(text.len()), &with);
        let _either = read(&text);
        let _either = read(&format!("bitcoin:{ADDRESS}?lightning={text}&lno={text}"));
    }
}

#[test]
fn the_choice_is_what_the_channels_can_send() {
    let text = format!("bitcoin:{ADDRESS}?lightning={INVOICE}&lno={OFFER}");
    let reading = read(&text).unwrap();
    let chosen = |spendable_msat| {
        let (way, why) = reading.choice(spendable_msat).unwrap();
        (way.kind, why)
    };
    assert_eq!(chosen(Some(250_000_000)).0, WayKind::Bolt11);
    // The offer names no amount, so nobody knows yet that it is too much.
    assert_eq!(chosen(Some(249_999_999)).0, WayKind::Bolt12);
    let (kind, why) = chosen(None);
    assert_eq!(kind, WayKind::OnChain);
    assert!(why.contains("no channel is usable for the BOLT 11 invoice"), "{why}");
    let alone = read(INVOICE).unwrap();
    assert_eq!(alone.choice(None).unwrap().0.kind, WayKind::Bolt11, "it is all there is");
    let wrong = Reading::of(INVOICE, Network::Regtest, THEN).unwrap();
    assert!(wrong.choice(Some(u64::MAX)).is_none());
}
