//! The vectors of BOLT 3: whole transactions (appendices C and F, zero-fee commitments),
//! secrets (appendix D) and keys (appendix E).
//!
//! Transactions are compared byte by byte, and the vectors' own signatures must satisfy our
//! scripts in Bitcoin Core's interpreter.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid, absolute, relative};
use channel_contracts::script::keys::{public_key, revocation_key, revocation_secret, secret_key};
use channel_contracts::script::{
    Basepoints, Commitment, CommitmentFormat, CommitmentKeys, CommitmentNumber, CommitmentParties,
    FundingScript, Htlc, HtlcDirection, HtlcSignatures, ObscureFactor, PerCommitmentPoint,
    PerCommitmentSecret, Preimage, RevocationSecrets, SecretError, SecretStore, Side,
};
use common::interpret;

#[derive(serde::Deserialize)]
struct Vectors {
    tests: Vec<Vector>,
}

#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    feerate_per_kw: u64,
    dust_limit_satoshis: u64,
    to_local_msat: u64,
    to_remote_msat: u64,
    htlcs: Vec<VectorHtlc>,
    commit_tx: String,
    htlc_txs: Vec<String>,
}

#[derive(serde::Deserialize)]
struct VectorHtlc {
    direction: String,
    amount_msat: u64,
    cltv_expiry: u32,
    preimage: String,
}

/// What all transactions of one set of vectors have in common.
struct Setting {
    funding_outpoint: OutPoint,
    point: PerCommitmentPoint,
    parties: CommitmentParties,
    to_self_delay: u16,
}

fn bytes(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

fn secret(hex: &str) -> SecretKey {
    SecretKey::from_slice(&bytes(hex)).unwrap()
}

fn public(hex: &str) -> PublicKey {
    hex.parse().unwrap()
}

fn public_of(hex: &str) -> PublicKey {
    secret(hex).public_key(&Secp256k1::new())
}

fn appendix_c() -> Setting {
    let txid: Txid =
        "8984484a580b825b9972d7adb15050b3ab624ccd731946b3eeddb92f4e7ef6be".parse().unwrap();
    // The vectors name no other use of a basepoint that they leave out.
    let unused = public_of(&"77".repeat(32));
    Setting {
        funding_outpoint: OutPoint::new(txid, 0),
        point: PerCommitmentPoint(public(
            "025f7117a78150fe2ef97db7cfc83bd57b2e2c0d0dd25eaf467a4a1c2a45ce1486",
        )),
        parties: CommitmentParties {
            broadcaster: Basepoints {
                funding: public(
                    "023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb",
                ),
                revocation: unused,
                payment: public_of(&"11".repeat(32)),
                delayed_payment: public_of(&"33".repeat(32)),
                htlc: public_of(&"11".repeat(32)),
            },
            countersignatory: Basepoints {
                funding: public(
                    "030e9f7b623d2ccc7c9bd44d66d5ce21ce504c0acf6385a132cec6d3c39fa711c1",
                ),
                revocation: public_of(&"22".repeat(32)),
                payment: public_of(&"44".repeat(32)),
                delayed_payment: unused,
                htlc: public_of(&"44".repeat(32)),
            },
        },
        to_self_delay: 144,
    }
}

fn zero_fee() -> Setting {
    let txid: Txid =
        "4b70a2ee47b3005a6316ff87055e94c6b3d433d0fd3b384c9ecf7813843c1eae".parse().unwrap();
    let unused = public_of(&"77".repeat(32));
    Setting {
        funding_outpoint: OutPoint::new(txid, 1),
        point: PerCommitmentPoint(public(
            "0275d12130c276b4274358a328901f8fc47e6c72629102e4b46c9f27dd2c1dda98",
        )),
        parties: CommitmentParties {
            broadcaster: Basepoints {
                funding: public_of(
                    "8f567cb6382507019349a47623902aa65d7a142ac85462eeb63dc11799ac2bb9",
                ),
                revocation: unused,
                payment: public_of(
                    "94f29d20a225ea2f7093331ba0f0f28a9382d8ed08e1fd121329925cd0c01b6d",
                ),
                delayed_payment: public_of(
                    "e9d4e1935bf16e948d76ad007baf0646df023af38f41bcf2c8799336949d291e",
                ),
                htlc: public_of("f699038ef4f95b6b16b22a5c04fcb3c508d68d02cd2f86cf197e0fac451681b0"),
            },
            countersignatory: Basepoints {
                funding: public_of(
                    "4d22d96f0c0ccecffee4554d20ed43e51235917508ee292d281235bb7ebe0e3e",
                ),
                revocation: public(
                    "026788d019ed90149cbc9aa5ff26dd7f1a6d3cd1bee8bf36cf7d8310fbd3606b14",
                ),
                payment: public_of(
                    "580bff39085f3a6ae8b1f32905e67366c522ea8f2418391145b2e98f1a7cb3f2",
                ),
                delayed_payment: unused,
                htlc: public_of("32df9c4dd46ab6210e74e81e15282106f8db883f45674eabb3324166c6513062"),
            },
        },
        to_self_delay: 720,
    }
}

impl Vector {
    fn format(&self) -> CommitmentFormat {
        match self.format.as_str() {
            "static_remotekey" => CommitmentFormat::StaticRemoteKey,
            "anchors" => CommitmentFormat::Anchors,
            "" => CommitmentFormat::ZeroFee,
            other => panic!("unknown format {other}"),
        }
    }

    fn commitment(&self, setting: &Setting) -> Commitment {
        let secp = Secp256k1::new();
        let htlc = |htlc: &VectorHtlc| Htlc {
            direction: match htlc.direction.as_str() {
                "offered" => HtlcDirection::Offered,
                "received" => HtlcDirection::Received,
                other => panic!("unknown direction {other}"),
            },
            amount_msat: htlc.amount_msat,
            payment_hash: Preimage(bytes(&htlc.preimage)).hash(),
            cltv_expiry: absolute::Height::from_consensus(htlc.cltv_expiry).unwrap(),
        };
        Commitment {
            funding_outpoint: setting.funding_outpoint,
            funding_value: Amount::from_sat(10_000_000),
            format: self.format(),
            number: CommitmentNumber::new(42).unwrap(),
            obscure_factor: ObscureFactor::derive(&setting.parties, Side::Broadcaster),
            keys: CommitmentKeys::derive(&secp, &setting.point, &setting.parties).unwrap(),
            to_self_delay: relative::Height::from_height(setting.to_self_delay),
            dust_limit: Amount::from_sat(self.dust_limit_satoshis),
            feerate: FeeRate::from_sat_per_kwu(self.feerate_per_kw),
            opener: Side::Broadcaster,
            to_broadcaster_msat: self.to_local_msat,
            to_countersignatory_msat: self.to_remote_msat,
            htlcs: self.htlcs.iter().map(htlc).collect(),
        }
    }

    /// Builds everything, compares it, and runs it. Returns how many transactions it compared.
    fn check(&self, setting: &Setting) -> usize {
        let name = &self.name;
        let commitment = self.commitment(setting);
        let built = commitment.build().unwrap();
        let expected: Transaction = deserialize(&hex::decode(&self.commit_tx).unwrap()).unwrap();

        let funding = FundingScript::new(
            setting.parties.broadcaster.funding,
            setting.parties.countersignatory.funding,
        );
        let mut signed = built.transaction.clone();
        let signatures = [1, 2].map(|item| signature(&expected, item));
        let [first, second] = funding.keys();
        let witness = funding.witness([(second, signatures[1]), (first, signatures[0])]);
        signed.input[0].witness = witness.unwrap();
        assert_eq!(hex::encode(serialize(&signed)), self.commit_tx, "{name}");

        let output =
            TxOut { value: commitment.funding_value, script_pubkey: funding.script_pubkey() };
        interpret(&signed, 0, &[output]).unwrap();

        // The number can be read back.
        assert_eq!(commitment.obscure_factor.reveal(&signed), CommitmentNumber::new(42));

        // The JSON of zero-fee vectors lists successes and timeouts apart.
        let mut expected: Vec<Transaction> = self
            .htlc_txs
            .iter()
            .map(|hex| deserialize(&hex::decode(hex).unwrap()).unwrap())
            .collect();
        expected.sort_by_key(|transaction| transaction.input[0].previous_output.vout);
        assert_eq!(built.htlcs.len(), expected.len(), "{name}");
        for (htlc, expected) in built.htlcs.iter().zip(&expected) {
            let payment_hash = htlc.script.htlc.payment_hash;
            let preimages = self.htlcs.iter().map(|htlc| Preimage(bytes(&htlc.preimage)));
            let preimage = preimages
                .clone()
                .find(|preimage| preimage.hash() == payment_hash)
                .filter(|_| htlc.script.htlc.direction == HtlcDirection::Received);
            let signatures = HtlcSignatures {
                countersignatory: signature(expected, 1),
                broadcaster: signature(expected, 2),
            };
            assert_eq!(
                signatures.countersignatory.sighash_type,
                self.format().countersignatory_htlc_sighash()
            );
            let mut transaction = htlc.unsigned().unwrap();
            transaction.input[0].witness = htlc.witness(&signatures, preimage.as_ref()).unwrap();
            assert_eq!(serialize(&transaction), serialize(expected), "{name}");
            let spent = &built.transaction.output[htlc.outpoint.vout as usize];
            interpret(&transaction, 0, std::slice::from_ref(spent)).unwrap();
        }
        1 + expected.len()
    }
}

fn signature(transaction: &Transaction, item: usize) -> Signature {
    Signature::from_slice(&transaction.input[0].witness[item]).unwrap()
}

#[test]
fn commitments_match_appendices_c_and_f() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/commitments.json")).unwrap();
    let setting = appendix_c();
    let compared: usize = vectors.tests.iter().map(|vector| vector.check(&setting)).sum();
    assert_eq!((vectors.tests.len(), compared), (24, 24 + 43));
}

#[test]
fn zero_fee_commitments_match_their_vectors() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("vectors/zero_fee_commitments.json")).unwrap();
    let setting = zero_fee();
    let compared: usize = vectors.tests.iter().map(|vector| vector.check(&setting)).sum();
    assert_eq!((vectors.tests.len(), compared), (8, 8 + 16));
}

/// Appendix B.
#[test]
fn funding_script_matches_appendix_b() {
    let parties = appendix_c().parties;
    let script = FundingScript::new(parties.countersignatory.funding, parties.broadcaster.funding);
    assert_eq!(
        hex::encode(script.witness_script().as_bytes()),
        "5221023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb\
         21030e9f7b623d2ccc7c9bd44d66d5ce21ce504c0acf6385a132cec6d3c39fa711c152ae"
    );
    assert_eq!(
        hex::encode(script.script_pubkey().as_bytes()),
        "0020c015c4a6be010e21657068fc2e6a9d02b27ebe4d490a25846f7237f104d1a3cd"
    );
}

/// Appendix C, "obscured commitment number = 0x2bb038521914 ^ 42".
#[test]
fn obscure_factor_matches_appendix_c() {
    let factor = ObscureFactor::derive(&appendix_c().parties, Side::Broadcaster);
    assert_eq!(factor.get(), 0x2bb0_3852_1914);
}

/// Appendix D, "Generation Tests".
#[test]
fn secrets_are_generated_as_in_appendix_d() {
    let zero = [0; 32];
    let ones = [0xff; 32];
    for (seed, index, expected) in [
        (
            zero,
            0xffff_ffff_ffff,
            "02a40c85b6f28da08dfdbe0926c53fab2de6d28c10301f8f7c4073d5e42e3148",
        ),
        (
            ones,
            0xffff_ffff_ffff,
            "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc",
        ),
        (
            ones,
            0x0aaa_aaaa_aaaa,
            "56f4008fb007ca9acf0e15b054d5c9fd12ee06cea347914ddbaed70d1c13a528",
        ),
        (
            ones,
            0x5555_5555_5555,
            "9015daaeb06dba4ccc05b91b2f73bd54405f2be9f217fbacd3c5ac2e62327d31",
        ),
        ([1; 32], 1, "915c75942a26bb3a433a8ce2cb0427c29ec6c1775cfc78328b57f6ba7bfeaa9c"),
    ] {
        let number = CommitmentNumber::from_index(index).unwrap();
        let secret = PerCommitmentSecret::generate(&seed, number);
        assert_eq!(hex::encode(secret.to_bytes()), expected);
    }
}

/// Inserts secrets from index 2^48 - 1 downwards; the number that is refused, if any.
fn insert_all(secrets: &[&str]) -> Option<usize> {
    let mut store = SecretStore::new();
    for (i, secret) in secrets.iter().enumerate() {
        let number = CommitmentNumber::new(i as u64).unwrap();
        match store.insert(number, PerCommitmentSecret::from_bytes(bytes(secret))) {
            Ok(()) => {}
            Err(SecretError::Inconsistent { number: refused, .. }) => {
                assert_eq!(refused, number);
                return Some(i + 1);
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}

/// Appendix D, "Storage Tests": the good sequence, then each with entries replaced.
#[test]
fn secrets_are_checked_as_in_appendix_d() {
    let good = [
        "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc",
        "c7518c8ae4660ed02894df8976fa1a3659c1a8b4b5bec0c4b872abeba4cb8964",
        "2273e227a5b7449b6e70f1fb4652864038b1cbf9cd7c043a7d6456b7fc275ad8",
        "27cddaa5624534cb6cb9d7da077cf2b22ab21e9b506fd4998a51d54502e99116",
        "c65716add7aa98ba7acb236352d665cab17345fe45b55fb879ff80e6bd0c41dd",
        "969660042a28f32d9be17344e09374b379962d03db1574df5a8a5a47e19ce3f2",
        "a5a64476122ca0925fb344bdc1854c1c0a59fc614298e50a33e331980a220f32",
        "05cde6323d949933f7f7b78776bcc1ea6d9b31447732e3802e1f7ac44b650e17",
    ];
    let bad_1 = (0, "02a40c85b6f28da08dfdbe0926c53fab2de6d28c10301f8f7c4073d5e42e3148");
    let bad_2 = (1, "dddc3a8d14fddf2b68fa8c7fbad2748274937479dd0f8930d5ebb4ab6bd866a3");
    let bad_3 = (2, "c51a18b13e8527e579ec56365482c62f180b7d5760b46e9477dae59e87ed423a");
    let bad_4 = (3, "ba65d7b0ef55a3ba300d4e87af29868f394f8f138d78a7011669c79b37b936f4");
    let bad_5 = (4, "631373ad5f9ef654bb3dade742d09504c567edd24320d2fcd68e3cc47e2ff6a6");
    let bad_6 = (5, "b7e76a83668bde38b373970155c868a653304308f9896692f904a23731224bb1");
    let bad_7 = (6, "e7971de736e01da8ed58b94c2fc216cb1dca9e326f3a96e7194fe8ea8af6c0a3");
    let bad_8 = (7, "a7efbc61aac46d34f77778bac22c8a20c6a46ca460addc49009bda875ec88fa4");
    let cases: [(&[_], _); 9] = [
        (&[], None),
        (&[bad_1], Some(2)),
        (&[bad_1, bad_2], Some(4)),
        (&[bad_3], Some(4)),
        (&[bad_1, bad_2, bad_3, bad_4], Some(8)),
        (&[bad_5], Some(6)),
        (&[bad_5, bad_6], Some(8)),
        (&[bad_7], Some(8)),
        (&[bad_8], Some(8)),
    ];
    for (replaced, refused) in cases {
        let mut secrets = good;
        for (at, secret) in replaced {
            secrets[*at] = secret;
        }
        assert_eq!(insert_all(&secrets), refused, "{replaced:?}");
    }
}

/// Appendix E.
#[test]
fn keys_are_derived_as_in_appendix_e() {
    let secp = Secp256k1::new();
    let base_secret = secret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let base = base_secret.public_key(&secp);
    let per_commitment_secret =
        secret("1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100");
    let point =
        PerCommitmentSecret::from_bytes(per_commitment_secret.secret_bytes()).point(&secp).unwrap();
    assert_eq!(
        point.0,
        public("025f7117a78150fe2ef97db7cfc83bd57b2e2c0d0dd25eaf467a4a1c2a45ce1486")
    );
    assert_eq!(
        public_key(&secp, &point, &base).unwrap(),
        public("0235f2dbfaa89b57ec7b055afe29849ef7ddfeb1cefdb9ebdc43f5494984db29e5")
    );
    assert_eq!(
        secret_key(&secp, &point, &base_secret).unwrap(),
        secret("cbced912d3b21bf196a766651e436aff192362621ce317704ea2f75d87e7be0f")
    );
    assert_eq!(
        revocation_key(&secp, &point, &base).unwrap(),
        public("02916e326636d19c33f13e8c0c3a03dd157f332f3e99c317c141dd865eb01f8ff0")
    );
    let secrets =
        RevocationSecrets { revocation_basepoint_secret: base_secret, per_commitment_secret };
    assert_eq!(
        revocation_secret(&secp, &secrets).unwrap(),
        secret("d09ffff62ddb2297ab000cc85bcb4283fdeb6aa052affbc9dddcf33b61078110")
    );
}
