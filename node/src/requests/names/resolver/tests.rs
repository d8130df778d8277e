//! A resolver of our own, over TCP, that answers from the recorded proofs of BIP 353.

use std::collections::HashMap;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::environment::{TcpLinks, UnixTime};

/// 7 August 2025, when the recorded proofs count.
const THEN: Duration = Duration::from_secs(1_754_600_000);

struct Stopped(UnixTime);

impl Clock for Stopped {
    fn now(&self) -> UnixTime {
        self.0
    }
}

/// How the resolver behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Puts an address of its own into the record.
    Lies,
    /// Knows nobody.
    KnowsNobody,
    /// Does not say that the answer is signed.
    DoesNotValidate,
    /// Answers with noise.
    Mumbles,
    /// Hangs up.
    HangsUp,
}

/// Name, type and whole text of a record.
fn parts(record: &[u8]) -> (Vec<u8>, u16) {
    let mut at = 0;
    while record[at] != 0 {
        at += 1 + usize::from(record[at]);
    }
    let number = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    let own = number(at + 1);
    // A signature belongs to the records that it covers.
    let kind = if own == 46 { number(at + 11) } else { own };
    (record[..=at].to_vec(), kind)
}

async fn resolver(manner: Manner) -> String {
    let mut known: HashMap<(Vec<u8>, u16), Vec<Vec<u8>>> = HashMap::new();
    for text in [
        include_str!("../vectors/root_to_bitcoin_ninja.hex"),
        include_str!("../vectors/simple.hex"),
        include_str!("../vectors/two_records.hex"),
        include_str!("../vectors/alias.hex"),
    ] {
        for line in text.lines() {
            let mut record = hex::decode(line).unwrap();
            if manner == Manner::Lies
                && let Some(at) = find(&record, b"bc1qztwy6")
            {
                record[at + 10] ^= 1;
            }
            known.entry(parts(&record)).or_default().push(record);
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::task::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn(serve(stream, known.clone(), manner));
        }
    });
    address
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

async fn serve(
    mut stream: TcpStream,
    known: HashMap<(Vec<u8>, u16), Vec<Vec<u8>>>,
    manner: Manner,
) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.unwrap();
        // Behind the twelve bytes of the header: name, type, class.
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap();
        let name = question[12..=end].to_vec();
        let kind = u16::from_be_bytes([question[end + 1], question[end + 2]]);
        let of =
            |name: &[u8], kind: u16| known.get(&(name.to_vec(), kind)).cloned().unwrap_or_default();
        let mut answers = of(&name, kind);
        let mut authorities = Vec::new();
        let aliases = of(&name, 5);
        if answers.is_empty() && !aliases.is_empty() {
            // A real resolver follows the alias, and proves that nothing stands before it.
            answers = aliases;
            let target = b"\x04matt\x04user\x10_bitcoin-payment\x0bmattcorallo\x03com\x00";
            answers.extend(of(target, kind));
            let proofs = known.iter().filter(|((_, kind), _)| *kind == 50);
            authorities = proofs.flat_map(|(_, records)| records.clone()).collect();
        }
        let nobody = manner == Manner::KnowsNobody || answers.is_empty();
        let signed = if manner == Manner::DoesNotValidate { 0 } else { 0x20 };
        let flags = 0x8180 | signed | if nobody { 3 } else { 0 };
        let mut answer = Vec::new();
        for number in [0, flags, 1, answers.len() as u16, authorities.len() as u16, 0] {
            answer.extend_from_slice(&number.to_be_bytes());
        }
        answer.extend_from_slice(&question[12..end + 5]);
        answer.extend(answers.concat());
        answer.extend(authorities.concat());
        match manner {
            Manner::HangsUp => return,
            Manner::Mumbles => answer.iter_mut().skip(2).for_each(|byte| *byte ^= 0x5a),
            _ => {}
        }
        stream.write_u16(answer.len() as u16).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

async fn resolve_at(name: &str, manner: Manner, now: UnixTime) -> Result<Proven, NameError> {
    let names = Names::new(resolver(manner).await, Arc::new(TcpLinks), Arc::new(Stopped(now)));
    names.resolve(&name.parse().unwrap()).await
}

async fn resolve(name: &str, manner: Manner) -> Result<Proven, NameError> {
    resolve_at(name, manner, THEN).await
}

const SIMPLE: &str = "₿simple@dnssec_proof_tests.bitcoin.ninja";

#[tokio::test]
async fn a_name_is_found_and_proven_question_by_question() {
    let simple = resolve(SIMPLE, Manner::Honest).await.unwrap();
    assert_eq!(simple.uri, "bitcoin:?bc=bc1qztwy6xen3zdtt7z0vrgapmjtfz8acjkfp5fp7l");
    assert_eq!(simple.until, THEN + Duration::from_secs(30));
    let alias = "a.x_domain_cname_wild@dnssec_proof_tests.bitcoin.ninja";
    let alias = resolve(alias, Manner::Honest).await.unwrap();
    assert!(alias.uri.contains("lno=lno1"), "{}", alias.uri);
}

#[tokio::test]
async fn a_resolver_can_be_silent_and_cannot_lie() {
    use ProofError as P;
    let lie = resolve(SIMPLE, Manner::Lies).await.unwrap_err();
    assert!(matches!(lie, NameError::Unproven { source: P::Forged, .. }), "{lie}");
    let two = resolve("invalid@dnssec_proof_tests.bitcoin.ninja", Manner::Honest).await;
    assert!(matches!(two, Err(NameError::Unproven { source: P::Several { count: 2 }, .. })));
    let late = resolve_at(SIMPLE, Manner::Honest, THEN * 2).await;
    assert!(matches!(late, Err(NameError::Unproven { source: P::Expired { .. }, .. })));
    let nobody = resolve("nobody@dnssec_proof_tests.bitcoin.ninja", Manner::Honest).await;
    assert!(matches!(nobody, Err(NameError::Unknown { .. })));
    assert!(matches!(resolve(SIMPLE, Manner::KnowsNobody).await, Err(NameError::Unknown { .. })));
    let unsigned = resolve(SIMPLE, Manner::DoesNotValidate).await;
    assert!(matches!(unsigned, Err(NameError::Unsigned { .. })));
    for manner in [Manner::Mumbles, Manner::HangsUp] {
        assert!(matches!(resolve(SIMPLE, manner).await, Err(NameError::Silent { .. })));
    }
}

#[tokio::test]
async fn nobody_is_asked_where_nobody_is_configured_or_there() {
    let names = |resolver: &str| {
        Names::new(resolver.to_owned(), Arc::new(TcpLinks), Arc::new(Stopped(THEN)))
    };
    let name: PersonName = SIMPLE.parse().unwrap();
    assert!(matches!(names("").resolve(&name).await, Err(NameError::Off)));
    let nobody = names("127.0.0.1:1").resolve(&name).await.unwrap_err();
    assert!(matches!(nobody, NameError::Unreachable { .. }), "{nobody}");
    assert!(nobody.to_string().contains("127.0.0.1:1"), "{nobody}");
}
