//! How a tower gets what waits for it: in order, signed for, again and again until it has it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use channel_contracts::tower::FeeLevels;

use super::link::{LinkFailure, Terms, TowerLink};
use super::make::{Maker, state_of};
use super::record::{self, TowerRecord};
use super::service::{Towers, in_time};
use crate::lightning::Revealed;
use crate::lightning::types::ChannelId;
use crate::store::{Batch, StoreError};
use crate::tower::server::{REMOVE_DOMAIN, SignedAppointment, request_hash};

/// Entries handed over at once.
const AT_ONCE: usize = 64;
/// Bytes of blobs after which no more go into a request: a tower takes 4 MiB.
const BYTES_AT_ONCE: usize = 1 << 20;
/// First wait after a failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Entries among which closed channels are looked for when a tower is full.
const LOOK_AHEAD: usize = 10_000;

impl Towers {
    /// Brings one tower what it is to have, for ever.
    pub(super) async fn deliver(&self, tower: PublicKey) {
        let mut newest = self.parts.log.next();
        let mut wait = RETRY_MIN;
        let mut link: Option<(Arc<dyn TowerLink>, Maker)> = None;
        loop {
            let Some(record) = self.record(&tower) else { return };
            if *newest.borrow_and_update() <= record.next {
                if newest.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let done = match &link {
                Some((link, maker)) => self.deliver_some(&**link, maker, &record).await,
                None => match self.connect(&record).await {
                    Ok(connected) => {
                        link = Some(connected);
                        continue;
                    }
                    Err(failure) => Err(Undelivered::Link(failure)),
                },
            };
            match done {
                Ok(()) => {
                    wait = RETRY_MIN;
                    self.note(&tower, None);
                    continue;
                }
                Err(Undelivered::Store(error)) => {
                    return tracing::error!(%error, %tower, "tower is not served any more");
                }
                Err(Undelivered::Link(failure)) => {
                    tracing::warn!(%tower, %failure, retry_in_ms = wait.as_millis(), "tower has not taken what it is to have");
                    self.note(&tower, Some(failure.to_string()));
                    link = None;
                    if let Err(error) = self.keep_bound(&tower) {
                        return tracing::error!(%error, %tower, "tower is not served any more");
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn connect(
        &self,
        record: &TowerRecord,
    ) -> Result<(Arc<dyn TowerLink>, Maker), LinkFailure> {
        let TowerRecord { tower, address, .. } = record;
        let link = self.parts.links.link(*tower, address).map_err(LinkFailure::Unreachable)?;
        let Terms { tower: found, takes_trusted } = in_time(link.terms()).await?;
        if found != *tower {
            return Err(LinkFailure::Unreachable(format!("{found} answers in its place")));
        }
        if record.trusted && !takes_trusted {
            let why = "it takes no remedies with secrets any more";
            return Err(LinkFailure::Unreachable(why.to_owned()));
        }
        let maker = Maker {
            tower: *tower,
            mode: record.mode(),
            // Ours: what a pair pays is anybody's who holds it, so no tower chooses it.
            fee_levels: FeeLevels::default(),
            client: self.parts.secrets.client(tower),
            tag_secret: self.parts.secrets.tags(tower),
        };
        Ok((link, maker))
    }

    /// Hands over the next entries, all of one kind.
    async fn deliver_some(
        &self,
        link: &dyn TowerLink,
        maker: &Maker,
        record: &TowerRecord,
    ) -> Result<(), Undelivered> {
        let entries = self.parts.log.read(record.next, AT_ONCE)?;
        let Some((first, revealed)) = entries.first() else {
            // What came before this tower's place was forgotten with another tower.
            let newest = *self.parts.log.next().borrow();
            return Ok(self.advance(&maker.tower, newest, 0, 0)?);
        };
        if let Revealed::Gone { channel } = revealed {
            self.say_gone(link, maker, *channel).await?;
            return Ok(self.advance(&maker.tower, first + 1, 0, 0)?);
        }
        let mut signed = Vec::new();
        let mut bytes = 0;
        let mut refused = 0;
        let mut next = *first;
        for (number, revealed) in &entries {
            let Some(state) = state_of(revealed) else { break };
            let sweep_script = self.sweep_script(state.channel)?;
            match maker.make(&self.secp, *number, state, sweep_script) {
                Ok(made) => {
                    bytes += made.as_ref().map_or(0, |made| made.appointment.blob.len());
                    signed.extend(made);
                }
                Err(why) => {
                    tracing::error!(channel = %state.channel, why, "no appointment can be made of a revoked state");
                    refused += 1;
                }
            }
            next = number + 1;
            if bytes > BYTES_AT_ONCE {
                break;
            }
            // Making them is work: payments come first.
            tokio::task::yield_now().await;
        }
        let handed = self.hand_over(link, maker, signed, &mut refused).await;
        if let Err(Undelivered::Link(LinkFailure::Subscription(_))) = &handed {
            // It may be full: channels that are closed make room, wherever they wait.
            self.say_what_is_gone(link, maker, next).await?;
        }
        let delivered = handed?;
        Ok(self.advance(&maker.tower, next, delivered, refused)?)
    }

    /// Hands appointments over and checks the receipts. What is refused for good is tried alone,
    /// so that one bad appointment does not take others with it.
    async fn hand_over(
        &self,
        link: &dyn TowerLink,
        maker: &Maker,
        signed: Vec<SignedAppointment>,
        refused: &mut u64,
    ) -> Result<u64, Undelivered> {
        if signed.is_empty() {
            return Ok(0);
        }
        // An address is paid only once it is durable that it is the wallet's.
        self.parts.committer.durable(self.parts.committer.now()).await?;
        let all = self.add_once(link, maker, signed.clone()).await;
        match all {
            Ok(count) => return Ok(count),
            Err(LinkFailure::Refused(_) | LinkFailure::Conflict(_)) => {}
            Err(failure) => return Err(failure.into()),
        }
        let mut delivered = 0;
        for alone in signed {
            let locator = alone.appointment.locator;
            match self.add_once(link, maker, vec![alone]).await {
                Ok(count) => delivered += count,
                Err(LinkFailure::Conflict(why)) => {
                    // Nothing was signed for.
                    tracing::error!(tower = %maker.tower, %locator, why, "tower has another appointment in its place");
                    *refused += 1;
                }
                Err(LinkFailure::Refused(why)) => {
                    tracing::error!(tower = %maker.tower, %locator, why, "tower refuses an appointment for good");
                    *refused += 1;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(delivered)
    }

    async fn add_once(
        &self,
        link: &dyn TowerLink,
        maker: &Maker,
        signed: Vec<SignedAppointment>,
    ) -> Result<u64, LinkFailure> {
        let client = maker.client.public_key(&self.secp);
        let receipts = match in_time(link.add(client, signed.clone())).await {
            Err(LinkFailure::Subscription(why)) => {
                tracing::info!(tower = %maker.tower, why, "subscription is renewed");
                self.register(link, maker.tower).await?;
                in_time(link.add(client, signed.clone())).await?
            }
            answer => answer?,
        };
        let wrong = |why: String| LinkFailure::Unreachable(format!("its receipt is wrong: {why}"));
        if receipts.len() != signed.len() {
            return Err(wrong(format!("{} of {}", receipts.len(), signed.len())));
        }
        for ((receipt, signature), signed) in receipts.iter().zip(&signed) {
            if receipt.tower != maker.tower || receipt.client != client {
                return Err(wrong("it is of others".into()));
            }
            let checked = receipt.verify(&self.secp, signature, &signed.appointment);
            checked.map_err(|error| wrong(error.to_string()))?;
        }
        Ok(signed.len() as u64)
    }

    /// Tells of the closed channels among what waits from `number` on.
    async fn say_what_is_gone(
        &self,
        link: &dyn TowerLink,
        maker: &Maker,
        number: u64,
    ) -> Result<(), Undelivered> {
        for (_, revealed) in self.parts.log.read(number, LOOK_AHEAD)? {
            if let Revealed::Gone { channel } = revealed {
                self.say_gone(link, maker, channel).await?;
            }
        }
        Ok(())
    }

    async fn say_gone(
        &self,
        link: &dyn TowerLink,
        maker: &Maker,
        channel: ChannelId,
    ) -> Result<(), Undelivered> {
        let tag = maker.tag(channel);
        let message = request_hash(REMOVE_DOMAIN, &maker.tower, &tag.0);
        let signature = self.secp.sign_ecdsa(&message, &maker.client);
        let client = maker.client.public_key(&self.secp);
        match in_time(link.forget(client, tag, signature)).await {
            // It has nothing of us, so nothing of the channel.
            Ok(())
            | Err(
                LinkFailure::Subscription(_) | LinkFailure::Conflict(_) | LinkFailure::Refused(_),
            ) => {}
            Err(failure) => return Err(failure.into()),
        }
        let mut writes = Batch::default();
        record::delete_sweep_script(channel, &mut writes);
        let _deleted_again_by_the_next_tower = self.parts.committer.enqueue(writes);
        Ok(())
    }
}

/// Why a tower has not taken what it is to have.
pub(super) enum Undelivered {
    Link(LinkFailure),
    Store(StoreError),
}

impl From<LinkFailure> for Undelivered {
    fn from(failure: LinkFailure) -> Self {
        Self::Link(failure)
    }
}

impl From<StoreError> for Undelivered {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
