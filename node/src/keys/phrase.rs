//! The words a person writes down (BIP 39, English), and the seed they stand for.
//!
//! Storage is `sealed.rs`; what is derived from the seed is `derivation.rs`.

use std::fmt;

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

use crate::environment::Entropy;

/// How many words a new phrase has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WordCount {
    /// 12 words: 128 bits.
    Twelve,
    /// 24 words: 256 bits.
    #[default]
    TwentyFour,
}

/// Why a phrase is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Only the two usual lengths are taken.
    #[error("a recovery phrase has 12 or 24 words, this one has {found}")]
    WordCount {
        /// How many words were given.
        found: usize,
    },
    /// The word is not in the English list. Its place is named, never the word: it is a secret.
    #[error("word {position} is not in the BIP 39 English list; check its spelling")]
    UnknownWord {
        /// The word's place, from 1.
        position: usize,
    },
    /// All words are known, but they do not belong together.
    #[error("the words do not match their checksum; check their order and spelling")]
    Checksum,
}

/// A BIP 39 recovery phrase. Wiped from memory when dropped; its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryPhrase(Mnemonic);

impl RecoveryPhrase {
    /// Draws a new phrase.
    pub fn generate(words: WordCount, entropy: &dyn Entropy) -> Self {
        let length = match words {
            WordCount::Twelve => 16,
            WordCount::TwentyFour => 32,
        };
        let mut bytes = Zeroizing::new([0u8; 32]);
        entropy.fill(&mut bytes[..length]);
        Self(Mnemonic::from_entropy(&bytes[..length]).expect("16 and 32 bytes are BIP 39 lengths"))
    }

    /// Reads a phrase of 12 or 24 English words, whatever the blanks and capitals.
    ///
    /// # Errors
    ///
    /// [`PhraseError`] names what is wrong, and never repeats a word.
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        let normal = Zeroizing::new(
            text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" "),
        );
        let found = normal.split(' ').filter(|word| !word.is_empty()).count();
        if found != 12 && found != 24 {
            return Err(PhraseError::WordCount { found });
        }
        Mnemonic::parse_in(Language::English, normal.as_str()).map(Self).map_err(
            |error| match error {
                bip39::Error::UnknownWord(index) => {
                    PhraseError::UnknownWord { position: index + 1 }
                }
                bip39::Error::BadWordCount(found) => PhraseError::WordCount { found },
                _ => PhraseError::Checksum,
            },
        )
    }

    /// The words, to be shown once to a person.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    /// Returns the seed; `passphrase` is BIP 39's optional "25th word".
    pub(super) fn seed(&self, passphrase: &str) -> Seed {
        Seed(Zeroizing::new(self.0.to_seed(passphrase)))
    }
}

impl fmt::Debug for RecoveryPhrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryPhrase([redacted])")
    }
}

/// The 64 bytes of BIP 39 from which every key of the node comes. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seed(pub(super) Zeroizing<[u8; 64]>);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::OsEntropy;

    /// Source: the test vectors of BIP 39 (passphrase "TREZOR").
    #[test]
    fn seeds_match_the_vectors_of_bip_39() {
        let vectors = [
            (
                "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
                "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04",
            ),
            (
                "legal winner thank year wave sausage worth useful legal winner thank yellow",
                "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd381ee6260e8d9739fce1f607",
            ),
            (
                "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
                "dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad",
            ),
        ];
        for (words, seed) in vectors {
            let phrase = RecoveryPhrase::parse(words).unwrap();
            assert_eq!(hex::encode(*phrase.seed("TREZOR").0), seed);
        }
    }

    #[test]
    fn generated_phrase_reads_back() {
        for (count, words) in [(WordCount::Twelve, 12), (WordCount::TwentyFour, 24)] {
            let phrase = RecoveryPhrase::generate(count, &OsEntropy);
            let text = phrase.words().collect::<Vec<_>>().join("  ").to_uppercase();
            assert_eq!(phrase.words().count(), words);
            assert_eq!(RecoveryPhrase::parse(&text).unwrap(), phrase);
        }
        assert_ne!(
            RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy),
            RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy)
        );
    }

    #[test]
    fn bad_phrase_is_named_without_its_words() {
        let eleven = "abandon ".repeat(11);
        assert_eq!(RecoveryPhrase::parse(&eleven), Err(PhraseError::WordCount { found: 11 }));
        let wrong_sum = "abandon ".repeat(12);
        assert_eq!(RecoveryPhrase::parse(&wrong_sum), Err(PhraseError::Checksum));
        let unknown = format!("{} tributary", eleven.trim());
        let error = RecoveryPhrase::parse(&unknown).unwrap_err();
        assert_eq!(error, PhraseError::UnknownWord { position: 12 });
        assert!(!error.to_string().contains("tributary"));
        assert_eq!(RecoveryPhrase::parse(""), Err(PhraseError::WordCount { found: 0 }));
    }

    #[test]
    fn debug_shows_nothing() {
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
        assert_eq!(format!("{phrase:?}"), "RecoveryPhrase([redacted])");
        assert_eq!(format!("{:?}", phrase.seed("")), "Seed([redacted])");
    }
}
