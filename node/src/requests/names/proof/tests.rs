//! The example proofs of BIP 353, whole, cut, changed, early and late. `vectors/README.md` says
//! what they are.

use proptest::prelude::*;

use super::*;

const ROOT: &str = include_str!("../vectors/root_to_bitcoin_ninja.hex");
const SIMPLE: &str = include_str!("../vectors/simple.hex");
const TWO: &str = include_str!("../vectors/two_records.hex");
const ALIAS: &str = include_str!("../vectors/alias.hex");

const SIMPLE_NAME: &str = "simple.user._bitcoin-payment.dnssec_proof_tests.bitcoin.ninja.";
const SIMPLE_URI: &str = "bitcoin:?bc=bc1qztwy6xen3zdtt7z0vrgapmjtfz8acjkfp5fp7l";
const ALIAS_NAME: &str =
    "a.x_domain_cname_wild.user._bitcoin-payment.dnssec_proof_tests.bitcoin.ninja.";
/// 7 August 2025, when all of them count.
const THEN: Duration = Duration::from_secs(1_754_600_000);
/// Type of a record that proves that there is none.
const NSEC3: u16 = 50;

fn records(parts: &[&str]) -> Vec<Vec<u8>> {
    parts.iter().flat_map(|part| part.lines()).map(|line| hex::decode(line).unwrap()).collect()
}

fn proof(parts: &[&str]) -> Vec<u8> {
    records(parts).concat()
}

fn of(record: &str, proof: &[u8]) -> Result<Proven, ProofError> {
    judge(record, proof, 3_600, THEN)
}

#[test]
fn the_examples_of_bip_353_hold() {
    let simple = of(SIMPLE_NAME, &proof(&[SIMPLE, ROOT])).unwrap();
    assert_eq!(simple.uri, SIMPLE_URI);
    // Its records live 30 s, whatever the resolver says.
    assert_eq!(simple.until, THEN + Duration::from_secs(30));
    let shorter = judge(SIMPLE_NAME, &proof(&[SIMPLE, ROOT]), 5, THEN).unwrap();
    assert_eq!(shorter.until, THEN + Duration::from_secs(5));
    // In any order.
    let mut turned = records(&[SIMPLE, ROOT]);
    turned.reverse();
    assert_eq!(of(SIMPLE_NAME, &turned.concat()).unwrap().uri, SIMPLE_URI);
    // Over an alias into another domain.
    let alias = of(ALIAS_NAME, &proof(&[ALIAS, ROOT])).unwrap();
    let start =
        "bitcoin:bc1qztwy6xen3zdtt7z0vrgapmjtfz8acjkfp5fp7l?lno=lno1zr5qyugqgskrk70kqmuq7v3dnr2";
    assert!(alias.uri.starts_with(start), "{}", alias.uri);
    // One text of two strings in its record.
    assert!(alias.uri.ends_with("xc3lpq") && alias.uri.len() > 255);
}

#[test]
fn the_wrong_examples_of_bip_353_are_refused() {
    let two = "invalid.user._bitcoin-payment.dnssec_proof_tests.bitcoin.ninja.";
    assert_eq!(of(two, &proof(&[TWO, ROOT])), Err(ProofError::Several { count: 2 }));
    // Without the proof that no record stands before the wildcard.
    let mut cut = records(&[ALIAS, ROOT]);
    cut.retain(|record| !covers(record, NSEC3));
    assert_eq!(of(ALIAS_NAME, &cut.concat()), Err(ProofError::Forged));
}

/// Whether a record is of this type, or the signature over such a one.
fn covers(record: &[u8], kind: u16) -> bool {
    let mut at = 0;
    while record[at] != 0 {
        at += 1 + usize::from(record[at]);
    }
    let number = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    number(at + 1) == kind || number(at + 1) == 46 && number(at + 11) == kind
}

#[test]
fn a_proof_counts_in_its_time_only() {
    let whole = proof(&[SIMPLE, ROOT]);
    let at = |now| judge(SIMPLE_NAME, &whole, 3_600, now);
    let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(365 * 86_400));
    assert!(matches!(at(THEN - day), Err(ProofError::Early { .. })));
    assert!(matches!(at(THEN + year), Err(ProofError::Expired { .. })));
    assert!(matches!(at(Duration::ZERO), Err(ProofError::Early { .. })));
    // The last second of the signatures is the last of the answer, too.
    let expired = |now| matches!(at(now), Err(ProofError::Expired { .. }));
    let (mut good, mut bad) = (THEN.as_secs(), (THEN + year).as_secs());
    while good + 1 < bad {
        let middle = good.midpoint(bad);
        match expired(Duration::from_secs(middle)) {
            true => bad = middle,
            false => good = middle,
        }
    }
    let last = at(Duration::from_secs(good)).unwrap();
    assert_eq!(last.until, Duration::from_secs(bad));
}

#[test]
fn what_is_missing_or_of_another_name_proves_nothing() {
    // The name of somebody else, whose records are not there.
    let other = "other.user._bitcoin-payment.dnssec_proof_tests.bitcoin.ninja.";
    assert_eq!(of(other, &proof(&[SIMPLE, ROOT])), Err(ProofError::NoInstructions));
    assert_eq!(of(SIMPLE_NAME, &proof(&[SIMPLE])), Err(ProofError::Forged));
    assert_eq!(of(SIMPLE_NAME, &[]), Err(ProofError::Forged));
    assert_eq!(of(SIMPLE_NAME, &[1, 2, 3]), Err(ProofError::Unreadable));
    let all = records(&[SIMPLE, ROOT]);
    for left_out in 0..all.len() {
        let mut cut = all.clone();
        cut.remove(left_out);
        match of(SIMPLE_NAME, &cut.concat()) {
            Ok(proven) => assert_eq!(proven.uri, SIMPLE_URI),
            // Without a delegation the way from the root leads nowhere.
            Err(error) => assert!(
                matches!(
                    error,
                    ProofError::Forged | ProofError::NoInstructions | ProofError::TooLong
                ),
                "{left_out}: {error}"
            ),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No change of a proof leads to another recipient.
    #[test]
    fn a_changed_proof_proves_the_same_or_nothing(at in 0..3_600_usize, with in 1..=255_u8) {
        let mut changed = proof(&[SIMPLE, ROOT]);
        let at = at % changed.len();
        changed[at] ^= with;
        if let Ok(proven) = of(SIMPLE_NAME, &changed) {
            prop_assert_eq!(proven.uri, SIMPLE_URI);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _either = of(SIMPLE_NAME, &bytes);
    }
}
