//! The books of a tower: who its clients are, and which channels of theirs it watches.
//!
//! All of it is in memory; each change writes its record into a batch of the caller's.

use std::collections::{BTreeMap, HashMap};

use bitcoin::secp256k1::PublicKey;
use channel_contracts::tower::ChannelTag;
use serde::{Deserialize, Serialize};

use crate::store::cbor::{decode, encode};
use crate::store::{Batch, Committer, StoreError, Table};

/// What a client has paid for, or was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its place among the clients.
    pub number: u32,
    /// Slots it may use in all.
    pub slots: u64,
    /// Slots in use.
    pub used: u64,
    /// The height at which the subscription began.
    pub starts: u32,
    /// The height from which nothing more is taken.
    pub expires: u32,
}

#[derive(Default)]
pub(super) struct Books {
    pub accounts: HashMap<PublicKey, Account>,
    pub clients: HashMap<u32, PublicKey>,
    /// By client and tag.
    pub channels: BTreeMap<(u32, ChannelTag), Channel>,
    /// Which client and tag have a channel's number. Appointments of numbers that are not here
    /// are void.
    pub owners: BTreeMap<u32, (u32, ChannelTag)>,
    pub next_client: u32,
    pub next_channel: u32,
    pub next_appointment: u64,
    /// Where tidying goes on; `None` while nothing is void.
    pub tidy: Option<u64>,
    /// Something became void while tidying was under way.
    pub is_dirty: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Channel {
    pub number: u32,
    /// The greatest place taken.
    pub last: u64,
    pub slots: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredChannel {
    client: u32,
    tag: [u8; 16],
    channel: Channel,
}

/// The place of the next channel's number.
const NEXT_CHANNEL: &str = "next-channel";
/// The place of the next client's number.
const NEXT_CLIENT: &str = "next-client";

impl Books {
    /// Reads what the store has.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn load(committer: &Committer) -> Result<Self, StoreError> {
        let mut books = Books::default();
        for (key, value) in committer.scan_all(Table::TowerClient, [])? {
            let account: Account = decode(Table::TowerClient, &value)?;
            let rest = Table::TowerClient.rest(&key).unwrap_or_default();
            let client = PublicKey::from_slice(rest)
                .map_err(|error| StoreError::Corrupt(format!("a tower's client: {error}")))?;
            books.clients.insert(account.number, client);
            books.accounts.insert(client, account);
        }
        for (_, value) in committer.scan_all(Table::TowerChannel, [])? {
            let StoredChannel { client, tag, channel } = decode(Table::TowerChannel, &value)?;
            let tag = ChannelTag(tag);
            books.owners.insert(channel.number, (client, tag));
            books.channels.insert((client, tag), channel);
        }
        if let Some(value) = committer.get(&Table::TowerMeta.key(NEXT_CHANNEL))? {
            books.next_channel = decode(Table::TowerMeta, &value)?;
        }
        if let Some(value) = committer.get(&Table::TowerMeta.key(NEXT_CLIENT))? {
            books.next_client = decode(Table::TowerMeta, &value)?;
        }
        Ok(books)
    }

    /// Makes the next client's number another one: none is ever given twice.
    pub fn take_client_number(&mut self, writes: &mut Batch) {
        self.next_client += 1;
        writes.put(Table::TowerMeta.key(NEXT_CLIENT), encode(&self.next_client));
    }

    pub fn put_account(&mut self, client: PublicKey, account: Account, writes: &mut Batch) {
        writes.put(Table::TowerClient.key(client.serialize()), encode(&account));
        self.accounts.insert(client, account);
    }

    /// The channel of `client` under `tag`, made if there is none.
    pub fn channel(&mut self, client: u32, tag: ChannelTag, writes: &mut Batch) -> &mut Channel {
        let (next, owners) = (&mut self.next_channel, &mut self.owners);
        self.channels.entry((client, tag)).or_insert_with(|| {
            let number = *next;
            *next += 1;
            // A number is never given twice: what is void must not come to life again.
            writes.put(Table::TowerMeta.key(NEXT_CHANNEL), encode(next));
            owners.insert(number, (client, tag));
            Channel { number, last: 0, slots: 0 }
        })
    }

    pub fn put_channel(&self, client: u32, tag: ChannelTag, writes: &mut Batch) {
        if let Some(channel) = self.channels.get(&(client, tag)) {
            let stored = StoredChannel { client, tag: tag.0, channel: *channel };
            writes.put(channel_key(client, tag), encode(&stored));
        }
    }

    pub fn tags_of(&self, client: u32) -> Vec<ChannelTag> {
        let all = (client, ChannelTag([0; 16]))..=(client, ChannelTag([u8::MAX; 16]));
        self.channels.range(all).map(|((_, tag), _)| *tag).collect()
    }

    pub fn remove_account(&mut self, client: &PublicKey, writes: &mut Batch) {
        if let Some(account) = self.accounts.remove(client) {
            self.clients.remove(&account.number);
            writes.delete(Table::TowerClient.key(client.serialize()));
        }
    }

    pub fn remove_channel(
        &mut self,
        client: &PublicKey,
        tag: ChannelTag,
        writes: &mut Batch,
    ) -> bool {
        let Some(mut account) = self.accounts.get(client).copied() else { return false };
        let Some(channel) = self.channels.remove(&(account.number, tag)) else { return false };
        self.owners.remove(&channel.number);
        writes.delete(channel_key(account.number, tag));
        account.used = account.used.saturating_sub(channel.slots);
        self.put_account(*client, account, writes);
        match self.tidy {
            Some(_) => self.is_dirty = true,
            None => self.tidy = Some(0),
        }
        true
    }
}

fn channel_key(client: u32, tag: ChannelTag) -> Vec<u8> {
    let mut rest = client.to_be_bytes().to_vec();
    rest.extend_from_slice(&tag.0);
    Table::TowerChannel.key(rest)
}
