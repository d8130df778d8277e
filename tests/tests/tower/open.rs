//! A client of the open tower protocol, with one finished penalty transaction.

use std::sync::Arc;

use bitcoin::FeeRate;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use channel_contracts::justice::combine;
use channel_contracts::tower::open_protocol::{
    AddAppointmentRequest, AddAppointmentResponse, AppointmentBody, AppointmentStatus, Endpoint,
    GetAppointmentRequest, GetAppointmentResponse, RegisterRequest, RegisterResponse,
    TrackedAppointment, message, penalty, signature,
};
use channel_contracts::tower::{Locator, Mode, Remedy};
use node::dev::Cluster;
use node::store::Committer;
use node::tower::server::{Ledger, StoredBlob};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tests::e2e::{other_spender, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::breach::{cheated, nothing_is_left_to_the_cheater, publish};
use crate::stage::Raised;

/// What the client's penalty pays.
const FEERATE: FeeRate = FeeRate::from_sat_per_kwu(1_000);

pub async fn a_client_of_the_open_protocol_gets_its_penalty_broadcast(net: &mut Cluster) {
    // The penalty is made from what a tower of ours has, which sleeps.
    let (_disks, mut ours, before) = cheated(net, Mode::Blind).await;
    ours.stop().await;
    let mut tower = Raised::new(net).await;
    let revoked = publish(net).await;
    let txid = revoked.compute_txid();
    net.mine(1).await.unwrap();
    tower.synced(net).await;
    let ledger = Ledger::open(Committer::new(Arc::new(ours.disk().open()))).unwrap();
    let stored = ledger.find(&Locator::of(txid)).unwrap();
    let StoredBlob::Sealed(blob) = StoredBlob::decode(&stored[0].blob).unwrap() else {
        panic!("a blob of ours is sealed");
    };
    let secp = Secp256k1::new();
    let mut pairs = Remedy::open(txid, &blob).unwrap().pairs(&secp, &revoked, FEERATE).unwrap();
    // The protocol's requests hold one input with a long witness, so this is about `to_local`.
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.spent.value));
    let whole = combine(&pairs[..1], None).unwrap();

    let address = tower.process().open_address.clone();
    let user = SecretKey::from_slice(&[9; 32]).unwrap();
    let user_id = user.public_key(&secp);
    let registered: RegisterResponse =
        post(&address, Endpoint::Register, &RegisterRequest { user_id }).await.unwrap();
    let word = registered.subscription_signature.clone().unwrap();
    let receipt = registered.subscription().receipt();
    assert!(signature::verify(&secp, &receipt, &word, &tower.key()));
    let locator = Locator::of(txid);
    let encrypted_blob = penalty::encrypt(txid, &whole);
    let appointment = AppointmentBody { locator, encrypted_blob, to_self_delay: 42 };
    let own = signature::sign(&secp, &appointment.message(), &user);
    let request = AddAppointmentRequest { appointment, signature: own.clone() };
    let taken_on: AddAppointmentResponse =
        post(&address, Endpoint::AddAppointment, &request).await.unwrap();
    let receipt = message::appointment_receipt(&own, taken_on.start_block);
    assert!(signature::verify(&secp, &receipt, &taken_on.signature, &tower.key()));

    let answer = other_spender(net, pairs[0].outpoint(), None).await;
    assert_eq!(answer.compute_txid(), whole.compute_txid());
    let asks = GetAppointmentRequest {
        locator,
        signature: signature::sign(&secp, &message::get_appointment(locator), &user),
    };
    until("the answer told to the client", async || {
        let told: GetAppointmentResponse =
            post(&address, Endpoint::GetAppointment, &asks).await.unwrap();
        told.status == AppointmentStatus::DisputeResponded
            && matches!(told.appointment, TrackedAppointment::Responded { penalty_txid, .. }
                if penalty_txid == whole.compute_txid())
    })
    .await;
    net.mine(1).await.unwrap();
    // Awake, the victim takes the payments that were pending.
    nothing_is_left_to_the_cheater(net, &before).await;

    // Somebody else's signature, and a body that is too long.
    let stranger = SecretKey::from_slice(&[8; 32]).unwrap();
    let text = signature::sign(&secp, &message::get_appointment(locator), &stranger);
    let asks = GetAppointmentRequest { locator, signature: text };
    let refused = post::<_, GetAppointmentResponse>(&address, Endpoint::GetAppointment, &asks);
    assert_eq!(refused.await.unwrap_err(), 401);
    let long = AppointmentBody { locator, encrypted_blob: vec![0; 3_000], to_self_delay: 42 };
    let request = AddAppointmentRequest { appointment: long, signature: own };
    let refused = post::<_, AddAppointmentResponse>(&address, Endpoint::AddAppointment, &request);
    assert_eq!(refused.await.unwrap_err(), 413);
    tower.stop().await;
}

/// Asks as Core Lightning's plugin does, by plain HTTP. Returns the answer, or the status.
async fn post<B: Serialize, A: DeserializeOwned>(
    address: &str,
    endpoint: Endpoint,
    body: &B,
) -> Result<A, u16> {
    let body = serde_json::to_vec(body).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        endpoint.path(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A tower that refuses a long body may hang up in the middle of it.
    let _whole_or_refused = stream.write_all(&body).await;
    let mut answer = Vec::new();
    let _read_to_the_end_or_reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    match status {
        200 => Ok(serde_json::from_str(body).unwrap()),
        status => Err(status),
    }
}
