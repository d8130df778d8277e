//! The examples of BIP 321, and what random texts and URIs do.

use proptest::prelude::*;

use super::*;

const BODY: &str = "175tWpb8K1S7NmH4Zx6rewF9WQrcZv245W";
const P2WPKH: &str = "bc1qufgy354j3kmvuch987xe4s40836x3h0lg8f5n2";
const P2TR: &str = "bc1p5swkugezn97763tl0yty6556856uug0q6jflljvep9m4p7339x5qzyrh4g";

fn read(rest: &str) -> Uri {
    Uri::read(&format!("bitcoin:{rest}")).unwrap()
}

fn refused(rest: &str) -> UriError {
    Uri::read(&format!("bitcoin:{rest}")).unwrap_err()
}

fn way(key: UriKey, text: &str) -> UriWay {
    UriWay { key, text: text.to_owned() }
}

#[test]
fn the_examples_of_bip_321_are_read() {
    assert_eq!(read(BODY).ways, [way(UriKey::Body, BODY)]);
    let uri = read(&format!("{BODY}?amount=20.3&label=Luke-Jr"));
    assert_eq!((uri.amount_sat, uri.label.as_deref()), (Some(2_030_000_000), Some("Luke-Jr")));
    let uri =
        read(&format!("{BODY}?amount=50&label=Luke-Jr&message=Donation%20for%20project%20xyz"));
    assert_eq!(uri.message.as_deref(), Some("Donation for project xyz"));
    let uri = read(&format!("{BODY}?lightning=lnbc420bogusinvoice"));
    assert_eq!(uri.ways[1], way(UriKey::Lightning, "lnbc420bogusinvoice"));
    let uri = read("?lno=lno1bogusoffer&sp=sp1qsilentpayment");
    let expected =
        [way(UriKey::Offer, "lno1bogusoffer"), way(UriKey::SilentPayment, "sp1qsilentpayment")];
    assert_eq!(uri.ways, expected);
    let unknown = "somethingyoudontunderstand=50&somethingelseyoudontget=999";
    assert_eq!(read(&format!("{BODY}?{unknown}")).ways.len(), 1);
    let both = [way(UriKey::Mainnet, P2WPKH), way(UriKey::Mainnet, P2TR)];
    assert_eq!(read(&format!("?bc={P2WPKH}&bc={P2TR}")).ways, both);
    let loud = format!("BITCOIN:{}?BC={}", P2WPKH.to_uppercase(), P2TR.to_uppercase());
    let loud = Uri::read(&loud).unwrap();
    assert_eq!(loud.ways[1], way(UriKey::Mainnet, &P2TR.to_uppercase()));
    assert_eq!(read("?tb=tb1qghfhmd4zh7ncpmxl3qzhmq566jk8ckq4gafnmg").ways.len(), 1);
    // What a payer may tell the application is nothing that must be told.
    assert_eq!(read(&format!("{BODY}?pop=initiatingapp%3a")).ways.len(), 1);
}

#[test]
fn the_wrong_examples_of_bip_321_are_refused() {
    let repeated = |key: &str| UriError::Repeated { key: key.to_owned() };
    assert_eq!(refused(&format!("{BODY}?label=Luke-Jr&label=Matt")), repeated("label"));
    assert_eq!(refused(&format!("{BODY}?amount=42&amount=10")), repeated("amount"));
    assert_eq!(refused(&format!("{BODY}?amount=42&amount=42")), repeated("amount"));
    assert_eq!(refused(&format!("{BODY}?pop=a%3a&req-pop=a%3a")), repeated("pop"));
    let wrong = refused("?bc=tb1qghfhmd4zh7ncpmxl3qzhmq566jk8ckq4gafnmg");
    assert!(matches!(wrong, UriError::WrongKey { key: "bc", .. }));
    for required in ["req-somethingyoudontunderstand=50", "REQ-a", "%72eq-a=1", "req-pop=b%3a"] {
        let refusal = refused(&format!("{BODY}?{required}"));
        assert!(matches!(refusal, UriError::RequiredKey { .. }), "{required}: {refusal}");
    }
}

#[test]
fn amounts_are_exact_or_refused() {
    for (text, sat) in [
        ("50.00", 5_000_000_000),
        ("50", 5_000_000_000),
        ("0.00000001", 1),
        ("0.000000010000", 1),
        (".5", 50_000_000),
        ("5.", 500_000_000),
        ("00021000000", AMOUNT_SAT_MAX),
        ("0.1", 10_000_000),
    ] {
        assert_eq!(read(&format!("{BODY}?amount={text}")).amount_sat, Some(sat), "{text}");
    }
    for text in [
        "",
        ".",
        "50,000.00",
        "1e3",
        "-1",
        "+1",
        "0x10",
        "1.2.3",
        "0.000000001",
        "21000000.00000001",
        "99999999999999999999999",
        "0",
        "0.0",
        " 1 1",
        "%31%2C",
    ] {
        let refusal = refused(&format!("{BODY}?amount={text}"));
        assert!(matches!(refusal, UriError::Amount { .. }), "{text}: {refusal}");
    }
    assert_eq!(read(&format!("{BODY}?AMOUNT=%31")).amount_sat, Some(100_000_000));
}

#[test]
fn odd_texts_are_refused_by_name() {
    assert_eq!(refused(""), UriError::NoWay);
    assert_eq!(refused("?amount=1"), UriError::NoWay);
    assert_eq!(refused("?lightning="), UriError::Empty { key: "lightning".to_owned() });
    assert_eq!(Uri::read("bitcoin"), Err(UriError::Scheme));
    assert_eq!(Uri::read("lightning:lnbc1"), Err(UriError::Scheme));
    for encoding in ["%", "%1", "%zz", "%ff", "%+1"] {
        let refusal = refused(&format!("{BODY}?label={encoding}"));
        assert!(matches!(refusal, UriError::Encoding { .. }), "{encoding}");
    }
    assert_eq!(read(&format!("{BODY}?label=a+b%2B")).label.as_deref(), Some("a+b+"));
    let long = format!("bitcoin:{}", "1".repeat(LEN_MAX));
    assert!(matches!(Uri::read(&long), Err(UriError::TooLong { .. })));
    // Empty parameters are nothing.
    assert_eq!(read(&format!("{BODY}?&&label=a&")).label.as_deref(), Some("a"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _either = Uri::read(&text);
        let _either = Uri::read(&format!("bitcoin:{text}"));
    }

    #[test]
    fn no_query_panics(text in "[a-zA-Z0-9%&=?.+-]{0,60}") {
        let _either = Uri::read(&format!("bitcoin:{BODY}?{text}"));
    }

    #[test]
    fn what_is_written_is_read_again(
        amount_sat in proptest::option::of(1..=AMOUNT_SAT_MAX),
        label in proptest::option::of("\\PC{0,20}"),
        message in proptest::option::of("\\PC{0,20}"),
        body in proptest::option::of("[13][a-zA-Z0-9]{1,40}"),
        invoices in proptest::collection::vec("lnbc[a-z0-9]{1,30}", 0..3),
        offer in proptest::option::of("lno1[a-z0-9]{1,30}"),
    ) {
        let ways: Vec<UriWay> = body.iter().map(|text| way(UriKey::Body, text))
            .chain(invoices.iter().map(|text| way(UriKey::Lightning, text)))
            .chain(offer.iter().map(|text| way(UriKey::Offer, text)))
            .collect();
        let uri = Uri { amount_sat, label, message, ways };
        let written = uri.to_string();
        prop_assert!(written.is_ascii());
        match uri.ways.is_empty() {
            true => prop_assert_eq!(Uri::read(&written), Err(UriError::NoWay)),
            false => prop_assert_eq!(Uri::read(&written), Ok(uri)),
        }
    }
}
