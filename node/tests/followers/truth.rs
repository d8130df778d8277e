//! The whole log, read when it is quiet: what every follower must have seen.
//!
//! It is read by four ways (pages and a stream of gRPC, pages of one kind each, and REST), which
//! must tell the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use http_body_util::{BodyExt, Full};
use prost::Message;
use proto::v1::event::Kind;
use proto::v1::events_client::EventsClient;
use proto::v1::{self as pb, EventKind};
use serde_json::Value;

use crate::doors::Doors;

const PAGE: u32 = 1_000;

/// What is known of one event.
#[derive(Debug, Clone)]
pub struct Fact {
    pub sequence: u64,
    pub kind: EventKind,
    /// Its content by gRPC.
    pub wire: u64,
    /// Its content as JSON.
    pub json: u64,
    /// What it is about, if it is about something that has further events.
    pub object: Option<u64>,
    /// Whether callers are told what it is; else it only keeps its place.
    pub is_told: bool,
}

/// The log.
pub struct Truth {
    /// By sequence, from 1.
    pub facts: Vec<Fact>,
    /// Events of channels in words, by gRPC and as JSON: for what went wrong.
    pub texts: BTreeMap<u64, [String; 2]>,
    /// How many events there are of each kind and state.
    pub counts: BTreeMap<String, u64>,
}

pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The digest of an event by gRPC.
pub fn wire_digest(event: &pb::Event) -> u64 {
    digest(&event.encode_to_vec())
}

/// The digest of an event as JSON.
pub fn json_digest(event: &Value) -> u64 {
    digest(event.to_string().as_bytes())
}

impl Truth {
    pub async fn read(doors: &Doors) -> Self {
        let channel = doors.grpc(None).await.expect("the node answers");
        let mut client = EventsClient::new(channel).max_decoding_message_size(64 << 20);
        let events = pages(&mut client, doors, &[]).await;
        let last = events.len() as u64;
        for (event, sequence) in events.iter().zip(1..) {
            assert_eq!(event.sequence, sequence, "the log has no gaps");
        }
        let mut kinds = BTreeMap::new();
        for kind in (1..).map_while(|number| EventKind::try_from(number).ok()) {
            for event in pages(&mut client, doors, &[kind]).await {
                let before = kinds.insert(event.sequence, kind);
                assert_eq!(before, None, "{event:?} is of one kind");
            }
        }
        let documents = documents(doors, last).await;
        let request =
            pb::SubscribeRequest { after_sequence: Some(0), ..pb::SubscribeRequest::default() };
        let mut stream = client.subscribe(doors.call(request)).await.unwrap().into_inner();
        let (mut facts, mut texts, mut counts) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (event, document) in events.iter().zip(&documents) {
            let sequence = event.sequence;
            let streamed = stream.message().await.unwrap().expect("the stream goes on");
            assert_eq!(*event, streamed, "page and stream tell the same");
            assert_eq!(document["sequence"], sequence);
            let kind = kinds[&sequence];
            if let Some(told) = &event.kind {
                assert_eq!(kind, kind_of(told), "{event:?}");
            }
            if kind == EventKind::Channel {
                texts.insert(sequence, [format!("{event:?}"), document.to_string()]);
            }
            *counts.entry(name(event)).or_default() += 1;
            facts.push(Fact {
                sequence,
                kind,
                wire: wire_digest(event),
                json: json_digest(document),
                object: event.kind.as_ref().and_then(object),
                is_told: event.kind.is_some(),
            });
        }
        Self { facts, texts, counts }
    }

    pub fn last(&self) -> u64 {
        self.facts.len() as u64
    }

    /// The events of some kinds; of all if there are none.
    pub fn of(&self, kinds: &[EventKind]) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(move |fact| kinds.is_empty() || kinds.contains(&fact.kind))
    }
}

/// The log by pages of gRPC.
async fn pages(
    client: &mut EventsClient<tonic::transport::Channel>,
    doors: &Doors,
    kinds: &[EventKind],
) -> Vec<pb::Event> {
    let mut events = Vec::new();
    let mut page_token = None;
    loop {
        let request = pb::ListEventsRequest {
            after_sequence: None,
            kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
            page_size: Some(PAGE),
            page_token,
        };
        let page = client.list(doors.call(request)).await.unwrap().into_inner();
        assert_eq!(page.oldest_sequence, Some(1), "nothing was pruned");
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_none() {
            return events;
        }
    }
}

/// The log by REST, up to an event.
async fn documents(doors: &Doors, last: u64) -> Vec<Value> {
    let mut sender = doors.http().await.expect("REST answers");
    let mut documents: Vec<Value> = Vec::new();
    while (documents.len() as u64) < last {
        let after = documents.len();
        let path = format!("Events/List?after_sequence={after}&page_size={PAGE}");
        let request = doors.get(&path).body(Full::default()).unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let mut page: Value = serde_json::from_slice(&body).unwrap();
        match page["events"].take() {
            Value::Array(events) if !events.is_empty() => documents.extend(events),
            other => panic!("after {after} of {last} come {other}"),
        }
    }
    documents.truncate(last as usize);
    documents
}

fn kind_of(kind: &Kind) -> EventKind {
    match kind {
        Kind::Payment(_) => EventKind::Payment,
        Kind::Invoice(_) => EventKind::Invoice,
        Kind::Channel(_) => EventKind::Channel,
        Kind::Wallet(_) => EventKind::Wallet,
        Kind::Chain(_) => EventKind::Chain,
        Kind::Tower(_) => EventKind::Tower,
        Kind::Node(_) => EventKind::Node,
        Kind::Batch(_) => EventKind::Batch,
        Kind::Swap(_) => EventKind::Swap,
        Kind::Webhook(_) => EventKind::Webhook,
        Kind::Payout(_) => EventKind::Payout,
        Kind::Security(_) => EventKind::Security,
    }
}

/// What an event is about, by its own words: those of one thing have an order.
fn object(kind: &Kind) -> Option<u64> {
    let named = |tag: u8, id: &[u8]| Some(digest(&[&[tag], id].concat()));
    match kind {
        Kind::Payment(event) => named(1, &event.payment_id),
        Kind::Invoice(event) => named(2, &event.payment_hash),
        Kind::Channel(event) => named(3, &event.record_id),
        Kind::Node(_) => named(7, &[]),
        Kind::Swap(event) => named(9, &event.swap_id),
        Kind::Webhook(event) => named(10, &event.endpoint_id),
        Kind::Payout(event) => named(11, &event.payout_id),
        Kind::Wallet(event) => named(4, &event.txid),
        Kind::Chain(_) => named(5, &[]),
        Kind::Tower(event) => named(6, &event.tower_id),
        Kind::Batch(_) | Kind::Security(_) => None,
    }
}

/// Kind and state of an event.
fn name(event: &pb::Event) -> String {
    match &event.kind {
        Some(Kind::Payment(event)) => {
            format!("{} {}", event.direction().as_str_name(), event.state().as_str_name())
        }
        Some(Kind::Invoice(event)) => event.state().as_str_name().to_owned(),
        Some(Kind::Channel(event)) => match &event.splice {
            Some(splice) => format!("SPLICE locked: {}", splice.locked),
            None => event.state().as_str_name().to_owned(),
        },
        Some(Kind::Node(event)) => event.kind().as_str_name().to_owned(),
        Some(other) => kind_of(other).as_str_name().to_owned(),
        None => "no message".to_owned(),
    }
}
