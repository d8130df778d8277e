//! What a tower has promised: accounts, channels and appointments, durable before it is answered.
//!
//! Three kinds of records. An *account* says what a client may store. A *channel* is a tag that
//! only its client understands, with a number: taking it away makes all its appointments void at
//! once, and [`Ledger::tidy`] removes what is void a little at a time. An *appointment* is in two
//! places: its locator in a page together with those that came with it, which is all that a start
//! has to read, and its blob by its own number.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use channel_contracts::tower::{ChannelTag, Locator};
use parking_lot::{Mutex, RwLock};

use super::books::{Account, Books};
use super::index::LocatorIndex;
use super::page::Page;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

/// Bytes of a blob that one slot of a subscription pays for.
pub const SLOT_BYTES: usize = 2_048;
/// Appointments that one client may have under one locator: a transaction is one commitment of one
/// channel, and whoever says more only makes work.
const LOCATOR_MAX: usize = 4;
/// Entries after which a step of tidying ends.
const TIDY_STEP: usize = 4_096;
/// Pages that it reads at once.
const TIDY_PAGES: usize = 64;
/// Blocks for which an account may lie unused.
const UNUSED_BLOCKS: u32 = 144;
/// Pages read at once at the start.
const PAGES_AT_ONCE: usize = 4_096;

/// An appointment, whichever protocol it came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which channel of its client.
    pub channel: ChannelTag,
    /// Its place in that channel: more than that of all before.
    pub sequence: u64,
    /// Under which it is found.
    pub locator: Locator,
    /// What is to be done, as `blob.rs` writes it.
    pub blob: Vec<u8>,
}

/// An appointment as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number: the order in which the tower took it.
    pub number: u64,
    /// Whose it is.
    pub client: PublicKey,
    /// Which channel of theirs.
    pub channel: ChannelTag,
    /// Its place in that channel.
    pub sequence: u64,
    /// The sealed remedy.
    pub blob: Vec<u8>,
}

/// Why appointments are not taken. Nothing of them is stored.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The client never registered.
    #[error("this tower does not know client {0}; register first")]
    Unknown(PublicKey),
    /// The subscription is over.
    #[error("the subscription ended at height {expires}, it is {best} now; register again")]
    Expired {
        /// The height at which it ended.
        expires: u32,
        /// The best block.
        best: u32,
    },
    /// The appointments need more slots than are left.
    #[error(
        "{wanted} slots of {SLOT_BYTES} bytes are needed, {left} are left; register again or remove closed channels"
    )]
    NoSlots {
        /// What they need.
        wanted: u64,
        /// What is left.
        left: u64,
    },
    /// Another appointment has this place already.
    #[error(
        "channel {channel} has another appointment under sequence {sequence} already; the first one stays"
    )]
    Conflict {
        /// The channel.
        channel: ChannelTag,
        /// The place.
        sequence: u64,
    },
    /// One client has too many appointments under one locator.
    #[error(
        "client has {LOCATOR_MAX} appointments under locator {0} already; a commitment has one"
    )]
    Crowded(Locator),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of appointments.
#[derive(Debug, Clone, Copy)]
pub struct Added {
    /// How many were new.
    pub new: u64,
    /// The account after it.
    pub account: Account,
    /// Durable with it.
    pub ticket: Ticket,
}

/// The accounts, channels and appointments of a tower.
pub struct Ledger {
    committer: Committer,
    books: Mutex<Books>,
    index: RwLock<LocatorIndex>,
}

impl Ledger {
    /// Reads what the store has.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(committer: Committer) -> Result<Self, StoreError> {
        let mut books = Books::load(&committer)?;
        let index = read_pages(&committer, &mut books)?;
        Ok(Self { committer, books: Mutex::new(books), index: RwLock::new(index) })
    }

    /// How many appointments are stored, void ones that are not tidied away among them.
    pub fn len(&self) -> u64 {
        self.index.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the table of locators takes in memory.
    pub fn index_bytes(&self) -> u64 {
        self.index.read().bytes()
    }

    /// How many clients are registered, and how many channels are watched.
    pub fn counts(&self) -> (usize, usize) {
        let books = self.books.lock();
        (books.accounts.len(), books.channels.len())
    }

    /// The account of `client`.
    pub fn account(&self, client: &PublicKey) -> Option<Account> {
        self.books.lock().accounts.get(client).copied()
    }

    /// The channels of `client`, in order.
    pub fn channels_of(&self, client: &PublicKey) -> Vec<ChannelTag> {
        let books = self.books.lock();
        let account = books.accounts.get(client);
        account.map(|account| books.tags_of(account.number)).unwrap_or_default()
    }

    /// Gives `client` a subscription from `best` on, or `slots` more and more time.
    pub fn register(
        &self,
        client: PublicKey,
        slots: u64,
        best: u32,
        blocks: u32,
    ) -> (Account, Ticket) {
        let mut books = self.books.lock();
        let number = books.next_client;
        let known = books.accounts.get(&client).copied();
        let mut writes = Batch::default();
        let account = match known {
            Some(known) => Account {
                slots: known.slots.saturating_add(slots),
                expires: known.expires.max(best.saturating_add(blocks)),
                ..known
            },
            None => {
                books.take_client_number(&mut writes);
                books.clients.insert(number, client);
                let expires = best.saturating_add(blocks);
                Account { number, slots, used: 0, starts: best, expires }
            }
        };
        books.put_account(client, account, &mut writes);
        (account, self.committer.enqueue(writes))
    }

    /// Makes room for a client among those who have left nothing. Returns whether there was one.
    pub fn forget_one_unused(&self) -> bool {
        let mut books = self.books.lock();
        let unused = books.accounts.iter().filter(|(_, account)| account.used == 0);
        let oldest = unused.min_by_key(|(_, account)| account.number).map(|(client, _)| *client);
        let mut writes = Batch::default();
        if let Some(client) = oldest {
            books.remove_account(&client, &mut writes);
            let _forgotten_again_after_a_crash = self.committer.enqueue(writes);
        }
        oldest.is_some()
    }

    /// Takes appointments of one client, all or none. One that is there already is taken again.
    /// They may be relied on once the ticket is durable.
    ///
    /// # Errors
    ///
    /// See [`AddError`].
    pub fn add(
        &self,
        client: PublicKey,
        appointments: &[Entry],
        best: u32,
    ) -> Result<Added, AddError> {
        let mut books = self.books.lock();
        let account = *books.accounts.get(&client).ok_or(AddError::Unknown(client))?;
        if best >= account.expires {
            return Err(AddError::Expired { expires: account.expires, best });
        }
        let mut new = Vec::with_capacity(appointments.len());
        let mut lasts: HashMap<ChannelTag, u64> = HashMap::new();
        let mut crowd: HashMap<Locator, usize> = HashMap::new();
        for appointment in appointments {
            let tag = appointment.channel;
            let known = books.channels.get(&(account.number, tag)).map(|channel| channel.last);
            let last = lasts.get(&tag).copied().or(known);
            if last.is_none_or(|last| appointment.sequence > last) {
                lasts.insert(tag, appointment.sequence);
                let more = crowd.entry(appointment.locator).or_insert(0_usize);
                if *more == 0 {
                    *more = self.of_client(&books, client, &appointment.locator)?.len();
                }
                *more += 1;
                if *more > LOCATOR_MAX {
                    return Err(AddError::Crowded(appointment.locator));
                }
                new.push(appointment);
                continue;
            }
            if !new.contains(&appointment) && !self.has(&books, client, appointment)? {
                let sequence = appointment.sequence;
                return Err(AddError::Conflict { channel: tag, sequence });
            }
        }
        let wanted: u64 = new.iter().map(|appointment| slots_of(appointment.blob.len())).sum();
        let left = account.slots.saturating_sub(account.used);
        if wanted > left {
            return Err(AddError::NoSlots { wanted, left });
        }
        if new.is_empty() {
            return Ok(Added { new: 0, account, ticket: self.committer.now() });
        }
        let writes = Batch::default();
        let (account, ticket) = self.write(&mut books, client, account, &new, writes);
        Ok(Added { new: new.len() as u64, account, ticket })
    }

    /// Puts `entry` in the place of all that its channel has, in one write.
    ///
    /// # Errors
    ///
    /// See [`AddError`].
    pub fn replace(&self, client: PublicKey, entry: &Entry, best: u32) -> Result<Added, AddError> {
        let mut books = self.books.lock();
        let account = *books.accounts.get(&client).ok_or(AddError::Unknown(client))?;
        if best >= account.expires {
            return Err(AddError::Expired { expires: account.expires, best });
        }
        let place = (account.number, entry.channel);
        let freed = books.channels.get(&place).map_or(0, |channel| channel.slots);
        let wanted = slots_of(entry.blob.len());
        let left = account.slots.saturating_sub(account.used.saturating_sub(freed));
        if wanted > left {
            return Err(AddError::NoSlots { wanted, left });
        }
        let mut writes = Batch::default();
        books.remove_channel(&client, entry.channel, &mut writes);
        let account = books.accounts.get(&client).copied().unwrap_or(account);
        let (account, ticket) = self.write(&mut books, client, account, &[entry], writes);
        Ok(Added { new: 1, account, ticket })
    }

    fn write(
        &self,
        books: &mut Books,
        client: PublicKey,
        account: Account,
        new: &[&Entry],
        mut writes: Batch,
    ) -> (Account, Ticket) {
        let mut page = Page::new(books.next_appointment);
        let mut index = self.index.write();
        let mut used = account.used;
        for appointment in new {
            let number = books.next_appointment;
            books.next_appointment += 1;
            let slots = slots_of(appointment.blob.len());
            let channel = books.channel(account.number, appointment.channel, &mut writes);
            channel.last = appointment.sequence;
            channel.slots = channel.slots.saturating_add(slots);
            used = used.saturating_add(slots);
            let mut value = Vec::with_capacity(8 + 4 + appointment.blob.len());
            value.extend_from_slice(&channel.number.to_be_bytes());
            value.extend_from_slice(&appointment.sequence.to_be_bytes());
            value.extend_from_slice(&appointment.blob);
            writes.put(blob_key(number), value);
            page.push(number, channel.number, appointment.locator);
            index.insert(&appointment.locator, number);
        }
        drop(index);
        writes.put(page.key(), page.encode());
        let tags: std::collections::BTreeSet<ChannelTag> =
            new.iter().map(|appointment| appointment.channel).collect();
        for tag in tags {
            books.put_channel(account.number, tag, &mut writes);
        }
        let account = Account { used, ..account };
        books.put_account(client, account, &mut writes);
        // Enqueued under the lock: the store has them in the order of their numbers.
        (account, self.committer.enqueue(writes))
    }

    /// Whether exactly this appointment is stored.
    fn has(
        &self,
        books: &Books,
        client: PublicKey,
        appointment: &Entry,
    ) -> Result<bool, StoreError> {
        let same = |stored: &Stored| {
            stored.channel == appointment.channel
                && stored.sequence == appointment.sequence
                && stored.blob == appointment.blob
        };
        Ok(self.of_client(books, client, &appointment.locator)?.iter().any(same))
    }

    fn of_client(
        &self,
        books: &Books,
        client: PublicKey,
        locator: &Locator,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut own = Vec::new();
        for number in self.index.read().candidates(locator) {
            own.extend(self.stored(books, number)?.filter(|stored| stored.client == client));
        }
        Ok(own)
    }

    /// The appointments that may be under `locator`, those of void channels left out. Their blobs
    /// say whether they are.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn find(&self, locator: &Locator) -> Result<Vec<Stored>, StoreError> {
        let numbers = self.index.read().candidates(locator);
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let books = self.books.lock();
        numbers.into_iter().filter_map(|number| self.stored(&books, number).transpose()).collect()
    }

    /// Those of `locators` under which something may be stored: the quick look at a whole block.
    pub fn hits(&self, locators: impl Iterator<Item = Locator>) -> Vec<Locator> {
        let index = self.index.read();
        locators.filter(|locator| index.is_known(locator)).collect()
    }

    fn stored(&self, books: &Books, number: u64) -> Result<Option<Stored>, StoreError> {
        let Some(value) = self.committer.get(&blob_key(number))? else { return Ok(None) };
        let corrupt = || StoreError::Corrupt(format!("appointment {number} of a tower"));
        let (channel, rest) = value.split_first_chunk::<4>().ok_or_else(corrupt)?;
        let (sequence, blob) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
        let Some((client, tag)) = books.owners.get(&u32::from_be_bytes(*channel)) else {
            return Ok(None);
        };
        let client = *books.clients.get(client).ok_or_else(corrupt)?;
        let sequence = u64::from_be_bytes(*sequence);
        Ok(Some(Stored { number, client, channel: *tag, sequence, blob: blob.to_vec() }))
    }

    /// Makes all appointments of a closed channel void: one write, however many there are.
    /// Returns whether there was such a channel.
    pub fn remove_channel(&self, client: &PublicKey, tag: ChannelTag) -> (bool, Ticket) {
        let mut books = self.books.lock();
        let mut writes = Batch::default();
        let removed = books.remove_channel(client, tag, &mut writes);
        (removed, self.committer.enqueue(writes))
    }

    /// Forgets the clients whose subscription ended `grace` blocks before `best`, and those who
    /// have left nothing for a day.
    pub fn expire(&self, best: u32, grace: u32) -> Ticket {
        let mut books = self.books.lock();
        let mut writes = Batch::default();
        let over = |account: &Account| {
            let unused = account.used == 0 && account.starts.saturating_add(UNUSED_BLOCKS) <= best;
            unused || account.expires.saturating_add(grace) <= best
        };
        let ended: Vec<(PublicKey, Account)> =
            books.accounts.iter().filter(|(_, a)| over(a)).map(|(c, a)| (*c, *a)).collect();
        for (client, account) in ended {
            for tag in books.tags_of(account.number) {
                books.remove_channel(&client, tag, &mut writes);
            }
            books.remove_account(&client, &mut writes);
        }
        self.committer.enqueue(writes)
    }

    /// Removes what is void of the next few thousand appointments, and joins small pages. Returns
    /// whether there is more to do.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn tidy(&self) -> Result<bool, StoreError> {
        let mut books = self.books.lock();
        let Some(from) = books.tidy else { return Ok(false) };
        let (_, to) = Table::TowerPage.range();
        let mut writes = Batch::default();
        let mut kept: Option<Page> = None;
        let (mut seen, mut next) = (0, Some(from));
        while let Some(from) = next.filter(|_| seen < TIDY_STEP) {
            let pairs = self.committer.scan(&Page::key_of(from), &to, TIDY_PAGES)?;
            let mut is_more = pairs.len() == TIDY_PAGES;
            next = None;
            for (at, (key, value)) in pairs.iter().enumerate() {
                let page = Page::decode(key, value)?;
                seen += page.len();
                next = Some(page.first() + 1);
                writes.delete(key.clone());
                let mut index = self.index.write();
                for entry in page.entries() {
                    if books.owners.contains_key(&entry.channel) {
                        let kept = kept.get_or_insert_with(|| Page::new(entry.number));
                        kept.push(entry.number, entry.channel, entry.locator);
                    } else {
                        index.remove(&entry.locator, entry.number);
                        writes.delete(blob_key(entry.number));
                    }
                }
                if seen >= TIDY_STEP {
                    is_more |= at + 1 < pairs.len();
                    break;
                }
            }
            next = next.filter(|_| is_more);
        }
        if let Some(kept) = kept {
            writes.put(kept.key(), kept.encode());
        }
        // What became void behind the place that was reached waits for the next round.
        let again = next.is_none() && std::mem::take(&mut books.is_dirty);
        books.tidy = next.or(again.then_some(0));
        let _voided_again_after_a_crash = self.committer.enqueue(writes);
        Ok(books.tidy.is_some())
    }
}

fn read_pages(committer: &Committer, books: &mut Books) -> Result<LocatorIndex, StoreError> {
    let mut index = LocatorIndex::new();
    let (from, to) = Table::TowerPage.range();
    committer.scan_steps(&from, &to, PAGES_AT_ONCE, |pairs| {
        for (key, value) in &pairs {
            let page = Page::decode(key, value)?;
            for entry in page.entries() {
                index.insert(&entry.locator, entry.number);
                books.next_appointment = books.next_appointment.max(entry.number + 1);
                if !books.owners.contains_key(&entry.channel) {
                    books.tidy = Some(0);
                }
            }
        }
        Ok(())
    })?;
    Ok(index)
}

/// Slots that a blob of `bytes` takes.
pub fn slots_of(bytes: usize) -> u64 {
    bytes.div_ceil(SLOT_BYTES).max(1) as u64
}

fn blob_key(number: u64) -> Vec<u8> {
    Table::TowerBlob.key(number.to_be_bytes())
}
