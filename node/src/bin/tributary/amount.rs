//! Amounts as people write them.
//!
//! One rule: a number without a unit is satoshis. `sat`, `msat` and `btc` may be written
//! behind it. What goes on chain must be whole satoshis. No floats anywhere.

use std::str::FromStr;

/// All bitcoin there will ever be, in millisatoshis.
const MSAT_MAX: u64 = 2_100_000_000_000_000_000;

/// How amounts are written, for help texts.
pub const RULE: &str = "\
Amounts: a plain number is satoshis (1000 is 1000sat). Other units are written out:
5000msat, 0.01btc. Underscores may group digits: 1_000_000. On-chain amounts and
capacities must be whole satoshis.

Exit codes: 1 refused or failed, 2 wrong usage, 3 the node cannot be reached.";

/// An amount of bitcoin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Msat(pub u64);

/// An amount of whole satoshis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sat(pub u64);

impl FromStr for Msat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let start = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(start);
        let (msat_per_unit, decimals_max) = match unit.to_ascii_lowercase().as_str() {
            "" | "sat" | "sats" => (1_000, 3),
            "msat" | "msats" => (1, 0),
            "btc" => (100_000_000_000, 11),
            _ => {
                return Err(format!(
                    "unknown unit {unit:?}; write sat, msat or btc, or nothing for sat"
                ));
            }
        };
        let digits: String = number.trim_end().chars().filter(|c| *c != '_').collect();
        let (whole, fraction) = match digits.split_once('.') {
            Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
            None => (digits.as_str(), ""),
        };
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
            return Err(format!(
                "{text:?} is no amount; write for example 1000sat, 5000msat or 0.01btc"
            ));
        }
        if fraction.len() > decimals_max {
            return Err(format!("{text} is finer than a millisatoshi"));
        }
        let too_much = || format!("{text} is more than all bitcoin");
        // The digits behind the point, as that many thousandths and so on of the unit.
        let scale = 10_u64.pow(fraction.len() as u32);
        let fraction: u64 = match fraction {
            "" => 0,
            digits => digits.parse().map_err(|_| too_much())?,
        };
        let whole: u64 = whole.parse().map_err(|_| too_much())?;
        whole
            .checked_mul(msat_per_unit)
            .and_then(|msat| msat.checked_add(fraction * (msat_per_unit / scale)))
            .filter(|msat| *msat <= MSAT_MAX)
            .map(Msat)
            .ok_or_else(too_much)
    }
}

impl FromStr for Sat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Msat(msat) = text.parse()?;
        match msat % 1_000 {
            0 => Ok(Self(msat / 1_000)),
            _ => Err(format!("{text} is not a whole number of satoshis")),
        }
    }
}

/// Groups the digits of a number by thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Writes an amount in satoshis, with its millisatoshis behind the point if there are any.
pub fn sat_from_msat(msat: u64) -> String {
    match msat % 1_000 {
        0 => grouped(msat / 1_000),
        rest => format!("{}.{rest:03}", grouped(msat / 1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_satoshis() {
        for (text, msat) in [
            ("1", 1_000),
            ("1000", 1_000_000),
            ("1000sat", 1_000_000),
            ("1_000 sats", 1_000_000),
            ("5000msat", 5_000),
            ("1MSAT", 1),
            ("0.001", 1),
            ("1.5sat", 1_500),
            ("0.01btc", 1_000_000_000),
            ("0.00000000001btc", 1),
            ("1.10000000000000btc", 110_000_000_000),
            ("21000000btc", MSAT_MAX),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Msat(msat)), "{text}");
        }
    }

    #[test]
    fn nothing_is_rounded_or_guessed() {
        for (text, said) in [
            ("", "no amount"),
            (".5", "no amount"),
            ("-1", "no amount"),
            ("+1", "no amount"),
            ("1,000", "no amount"),
            ("1e3", "unknown unit"),
            ("1 eur", "unknown unit"),
            ("1.0.0", "no amount"),
            ("1.5msat", "finer"),
            ("0.0001sat", "finer"),
            ("0.000000000001btc", "finer"),
            ("21000000.00000000001btc", "more than all"),
            ("99999999999999999999", "more than all"),
            ("18446744073709551615sat", "more than all"),
        ] {
            let error = text.parse::<Msat>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert_eq!("0.5btc".parse(), Ok(Sat(50_000_000)));
        assert_eq!("3000msat".parse(), Ok(Sat(3)));
        let error = "3001msat".parse::<Sat>().unwrap_err();
        assert!(error.contains("whole number"), "{error}");
    }

    #[test]
    fn amounts_are_written_in_satoshis() {
        assert_eq!(sat_from_msat(0), "0");
        assert_eq!(sat_from_msat(999), "0.999");
        assert_eq!(sat_from_msat(1_234_567_000), "1,234,567");
        assert_eq!(sat_from_msat(100_001), "100.001");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(100), "100");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(msat in 0..=MSAT_MAX) {
            let written = sat_from_msat(msat).replace(',', "_");
            assert_eq!(written.parse(), Ok(Msat(msat)));
            assert_eq!(format!("{msat}msat").parse(), Ok(Msat(msat)));
        }
    }
}
