//! A tower's disk fails, and the power goes, at every commit: what was signed for is there.

use std::sync::Arc;

use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Network, Txid, hashes::Hash};
use channel_contracts::tower::{Appointment, ChannelTag, Locator, SealedBlob};
use node::config::Config;
use node::dev::DevChain;
use node::environment::OsEntropy;
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::node::tower::TowerProcess;
use node::store::{DiskFault, MemoryDisk, PowerCut};
use node::tower::server::{GET_DOMAIN, REMOVE_DOMAIN, SignedAppointment, request_hash};

/// Appointments of one errand, by threes.
const GROUPS: u64 = 6;
const GROUP: u64 = 3;
/// The channel that is closed on the way.
const CLOSED: ChannelTag = ChannelTag([1; 16]);
const OPEN: ChannelTag = ChannelTag([2; 16]);

/// A lying disk is not among them: what it never wrote nobody can promise.
const FAULTS: [DiskFault; 4] =
    [DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer, DiskFault::Full];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tower_signed_for_survives_every_crash() {
    let chain = DevChain::embedded();
    let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
    let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
    let mut crashes = 0;
    for fault in FAULTS {
        for commit in 1.. {
            for kept in [0, usize::MAX] {
                if !Run::new(&chain, &keys).crash_at(commit, fault, kept).await {
                    break;
                }
                crashes += 1;
            }
            if commit > 4 * GROUPS {
                break;
            }
        }
    }
    assert!(crashes > 20, "only {crashes} crashes were tried");
}

/// One tower's life up to a crash, and after it.
struct Run<'a> {
    chain: &'a DevChain,
    keys: &'a Arc<Keys>,
    disk: MemoryDisk,
    secp: Secp256k1<All>,
    client: SecretKey,
    /// What was signed for.
    acknowledged: Vec<Appointment>,
    /// Whether the tower said that the closed channel is forgotten.
    is_forgotten: bool,
}

impl<'a> Run<'a> {
    fn new(chain: &'a DevChain, keys: &'a Arc<Keys>) -> Self {
        let client = SecretKey::from_slice(&[7; 32]).unwrap();
        let (disk, secp) = (MemoryDisk::new(), Secp256k1::new());
        let (acknowledged, is_forgotten) = (Vec::new(), false);
        Self { chain, keys, disk, secp, client, acknowledged, is_forgotten }
    }

    async fn start(&self) -> TowerProcess {
        let environment = self.chain.environment(Arc::new(self.disk.open()));
        TowerProcess::start(&Config::default(), self.keys, environment).await.unwrap()
    }

    /// Lets `fault` happen at a commit after the start. Returns whether it came to that.
    async fn crash_at(mut self, commit: u64, fault: DiskFault, kept: usize) -> bool {
        let tower = self.start().await;
        tower.tower.register(self.public()).await.unwrap();
        self.disk.fault_at(self.disk.commits() + commit, fault);
        let failed = self.errand(&tower).await.is_err();
        tower.stop().await;
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        self.disk.cut_power(PowerCut { kept, torn_writes: 0 });
        let tower = self.start().await;
        self.check(&tower).await;
        // What was not signed for is handed over again, and all is there.
        self.errand(&tower).await.unwrap();
        self.check(&tower).await;
        tower.stop().await;
        failed
    }

    /// Hands over the appointments that are not signed for, and closes a channel in the middle.
    async fn errand(&mut self, tower: &TowerProcess) -> Result<(), ()> {
        let own = self.public();
        for group in 0..GROUPS {
            let appointments: Vec<Appointment> = (group * GROUP..(group + 1) * GROUP)
                .map(appointment)
                .filter(|one| !self.acknowledged.contains(one))
                .filter(|one| one.channel != CLOSED || !self.is_forgotten)
                .collect();
            let sign = |one: &Appointment| SignedAppointment {
                appointment: one.clone(),
                signature: self
                    .secp
                    .sign_ecdsa(&one.message_hash(&tower.tower.key()), &self.client),
            };
            let signed: Vec<SignedAppointment> = appointments.iter().map(sign).collect();
            if !signed.is_empty() {
                let receipts = tower.tower.add(own, signed).await.map_err(|_| ())?;
                for ((receipt, signature), appointment) in receipts.iter().zip(&appointments) {
                    receipt.verify(&self.secp, signature, appointment).unwrap();
                }
                self.acknowledged.extend(appointments);
            }
            if group == GROUPS / 2 {
                let message = request_hash(REMOVE_DOMAIN, &tower.tower.key(), &CLOSED.0);
                let signature = self.secp.sign_ecdsa(&message, &self.client);
                tower.tower.remove_channel(own, CLOSED, &signature).await.map_err(|_| ())?;
                self.is_forgotten = true;
            }
        }
        Ok(())
    }

    /// Asserts that the tower has what it signed for, and nothing of a channel it forgot.
    async fn check(&self, tower: &TowerProcess) {
        for appointment in &self.acknowledged {
            let locator = appointment.locator;
            let message = request_hash(GET_DOMAIN, &tower.tower.key(), &locator.0);
            let signature = self.secp.sign_ecdsa(&message, &self.client);
            let stored = tower.tower.get(self.public(), locator, &signature).unwrap();
            let is_there = stored.iter().any(|one| {
                (one.channel, one.sequence) == (appointment.channel, appointment.sequence)
                    && one.blob.get(1..) == Some(&appointment.blob.encode()[..])
            });
            match appointment.channel {
                CLOSED if self.is_forgotten => assert!(!is_there, "{locator} is back"),
                // The word that it is closed was on its way when the power went.
                CLOSED => {}
                _ => assert!(is_there, "{locator} was signed for and is lost"),
            }
        }
    }

    fn public(&self) -> PublicKey {
        self.client.public_key(&self.secp)
    }
}

/// The appointment of this number: of the closed channel first, then of both in turn.
fn appointment(number: u64) -> Appointment {
    let noise = [number as u8 + 1; 32];
    let channel =
        if number.is_multiple_of(2) && number <= GROUPS / 2 * GROUP { CLOSED } else { OPEN };
    // Version and mode, then what nobody can open.
    let blob = [&[1, 0][..], &noise.repeat(11)[..348]].concat();
    Appointment {
        channel,
        sequence: number + 1,
        locator: Locator::of(Txid::from_byte_array(noise)),
        blob: SealedBlob::decode(&blob).unwrap(),
    }
}
