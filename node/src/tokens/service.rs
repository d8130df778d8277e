//! The tokens service: bakes, lists, revokes, and says who holds what.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::account::AccountId;
use super::ledger::Ledger;
use super::purse::Purse;
use super::refusals::Refusals;
use super::restriction::{Restriction, RestrictionError};
use super::token::{LinkId, ParseTokenError, Token, TokenId};
use crate::environment::{Clock, Entropy};
use crate::journal::{
    DomainEvent, Fingerprint, Idempotency, IdempotencyError, IdempotencyKey, Journal,
    SecurityEvent, millis,
};
use crate::store::{Batch, Committer, StoreError, Table, Ticket, cbor};

/// What the service is made from.
pub struct TokenParts {
    /// What every chain begins with.
    pub secret: Zeroizing<[u8; 32]>,
    /// The way to the store.
    pub committer: Committer,
    /// Where it is told who may call.
    pub journal: Journal,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids.
    pub entropy: Arc<dyn Entropy>,
}

/// The tokens service.
pub struct Tokens {
    parts: TokenParts,
    idempotency: Idempotency,
    refusals: Refusals,
    ledger: Arc<Ledger>,
    state: RwLock<State>,
    /// Held while a token is made: of concurrent duplicates one is first.
    baking: Mutex<()>,
    /// Counts revocations, so that streams look whether they are meant.
    revocations: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    baked: BTreeMap<TokenId, Record>,
    /// Last links of narrowed tokens that were revoked.
    revoked: HashSet<LinkId>,
}

/// A token as stored. Its text is not: it follows from the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    name: String,
    /// Kind and body of each restriction.
    restrictions: Vec<(u8, serde_bytes::ByteBuf)>,
    created_ms: u64,
    revoked_ms: Option<u64>,
}

/// A token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// What its maker called it.
    pub name: String,
    /// What it is restricted to.
    pub restrictions: Vec<Restriction>,
    /// When it was baked, in ms since the Unix epoch.
    pub created_ms: u64,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
    /// Its first budget, what is spent and what is reserved, msat.
    pub budget: Option<(u64, super::Account)>,
}

/// A token that was just made.
pub struct Baked {
    /// What is listed of it.
    pub view: TokenView,
    /// The token.
    pub token: Token,
}

/// Who holds a valid token, and what it allows.
#[derive(Debug, Clone)]
pub struct Holder {
    id: TokenId,
    links: Vec<LinkId>,
    restrictions: Vec<Restriction>,
    purse: Option<Purse>,
}

/// Why no token is baked.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// It would be too long.
    #[error(transparent)]
    Token(#[from] ParseTokenError),
    /// The caller's key.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which token is revoked.
#[derive(Debug, Clone)]
pub enum Revoking {
    /// One that was baked, and all that were narrowed from it.
    Baked(TokenId),
    /// One by its text, and all that were narrowed from it.
    Text(Zeroizing<String>),
}

/// Why no token is revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// It was never baked here.
    #[error("no token {0}")]
    Unknown(TokenId),
    /// The text is no token of this node.
    #[error("the text is no token of this node")]
    NotOurs,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It cannot be read.
    #[error("the token cannot be read: {0}")]
    Unreadable(#[from] ParseTokenError),
    /// It is not this node's, or was changed.
    #[error("the token is not this node's")]
    NotOurs,
    /// It was revoked, or one that it was narrowed from.
    #[error("token {0} was revoked")]
    Revoked(TokenId),
    /// Its time is over.
    #[error("token {id} expired {seconds} s ago")]
    Expired {
        /// The token.
        id: TokenId,
        /// How long ago.
        seconds: u64,
    },
    /// It does not open from there.
    #[error("token {id} does not open from {}", .source_ip.map_or("an unknown address".to_owned(), |ip| ip.to_string()))]
    Source {
        /// The token.
        id: TokenId,
        /// Where the call comes from.
        source_ip: Option<IpAddr>,
    },
}

impl Tokens {
    /// Reads what was baked and revoked.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: TokenParts) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (key, value) in parts.committer.scan_all(Table::Token, [])? {
            let id = id_of(Table::Token, &key)?;
            let record: Record = cbor::decode(Table::Token, &value)?;
            record.restrictions()?;
            state.baked.insert(TokenId(id), record);
        }
        for (key, _) in parts.committer.scan_all(Table::TokenRevoked, [])? {
            state.revoked.insert(LinkId(id_of(Table::TokenRevoked, &key)?));
        }
        let ledger = Arc::new(Ledger::open(&parts.committer)?);
        let idempotency = Idempotency::new(parts.committer.clone());
        let revocations = watch::Sender::new(0);
        let state = RwLock::new(state);
        let refusals = Refusals::default();
        let baking = Mutex::new(());
        Ok(Self { parts, idempotency, refusals, ledger, state, baking, revocations })
    }

    /// Takes note that a call was refused because of its token, or because it had none.
    pub fn note_refused(&self, why: &str) {
        self.refusals.count(&self.parts.journal, why);
    }

    /// The accounts of all budgets.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Bakes a token, once it is durable. A repetition under the same key gives the first one.
    ///
    /// # Errors
    ///
    /// See [`BakeError`].
    pub async fn bake(
        &self,
        name: &str,
        restrictions: Vec<Restriction>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Baked, BakeError> {
        let (id, ticket) = self.bake_now(name, restrictions, key)?;
        self.parts.committer.durable(ticket).await?;
        let corrupt = || StoreError::Corrupt("idempotency record without its token".into());
        let record = self.state.read().baked.get(&id).cloned().ok_or_else(corrupt)?;
        let token = Token::bake(&self.parts.secret, id, record.restrictions()?)?;
        Ok(Baked { view: self.view(id, &record)?, token })
    }

    fn bake_now(
        &self,
        name: &str,
        restrictions: Vec<Restriction>,
        key: Option<&IdempotencyKey>,
    ) -> Result<(TokenId, Ticket), BakeError> {
        let fingerprint = Fingerprint::of(&(name, &restrictions));
        let now = self.parts.clock.now();
        let _one_at_a_time = self.baking.lock();
        if let Some(answer) = self.idempotency.recall(key, fingerprint, now)? {
            let id = <[u8; 16]>::try_from(&answer[..])
                .map_err(|_| StoreError::Corrupt("idempotency record of a token".into()))?;
            return Ok((TokenId(id), self.parts.committer.now()));
        }
        let id = TokenId(self.parts.entropy.bytes());
        let record = Record {
            name: name.to_owned(),
            restrictions: restrictions
                .iter()
                .map(|restriction| {
                    let (kind, body) = restriction.encode();
                    (kind, serde_bytes::ByteBuf::from(body))
                })
                .collect(),
            created_ms: millis(now),
            revoked_ms: None,
        };
        // Too many or too long ones are refused before they are recorded.
        let _fits = Token::bake(&self.parts.secret, id, restrictions)?;
        let mut batch = Batch::default();
        batch.put(Table::Token.key(id.0), cbor::encode(&record));
        self.idempotency.record(&mut batch, key, fingerprint, &id.0, now);
        let event = SecurityEvent::TokenBaked { token: id.0, name: name.to_owned() };
        let ticket = self.parts.journal.append(&[DomainEvent::Security(event)], batch);
        self.state.write().baked.insert(id, record);
        tracing::info!(%id, name, "token baked");
        Ok((id, ticket))
    }

    /// The tokens that were baked, by id, from the first after `after` on: at most `limit`.
    ///
    /// # Errors
    ///
    /// If a record cannot be read.
    pub fn list(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<TokenView>, StoreError> {
        let state = self.state.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = state.baked.range((from, Bound::Unbounded)).take(limit);
        rest.map(|(id, record)| self.view(*id, record)).collect()
    }

    /// The token that was baked as `id`.
    ///
    /// # Errors
    ///
    /// If its record cannot be read.
    pub fn get(&self, id: TokenId) -> Result<Option<TokenView>, StoreError> {
        let record = self.state.read().baked.get(&id).cloned();
        record.map(|record| self.view(id, &record)).transpose()
    }

    /// Revokes a token and all that were narrowed from it: at once, and durably when this
    /// returns. Doing it again changes nothing. Returns the token that was baked.
    ///
    /// # Errors
    ///
    /// See [`RevokeError`].
    pub async fn revoke(&self, which: &Revoking) -> Result<TokenView, RevokeError> {
        let (id, link) = match which {
            Revoking::Baked(id) => (*id, None),
            Revoking::Text(text) => {
                let token = Token::parse(text).map_err(|_| RevokeError::NotOurs)?;
                token.links(&self.parts.secret).ok_or(RevokeError::NotOurs)?;
                let state = self.state.read();
                let baked = state.baked.get(&token.id()).ok_or(RevokeError::NotOurs)?;
                let narrowed = token.restrictions().len() > baked.restrictions.len();
                (token.id(), narrowed.then(|| token.last_link()))
            }
        };
        let (view, ticket) = self.revoke_now(id, link)?;
        self.revocations.send_modify(|count| *count += 1);
        self.parts.committer.durable(ticket).await?;
        Ok(view)
    }

    fn revoke_now(
        &self,
        id: TokenId,
        link: Option<LinkId>,
    ) -> Result<(TokenView, Ticket), RevokeError> {
        let now_ms = millis(self.parts.clock.now());
        let mut batch = Batch::default();
        let mut state = self.state.write();
        let mut is_new = false;
        if let Some(link) = link {
            is_new = !state.revoked.contains(&link);
            batch.put(Table::TokenRevoked.key(link.0), cbor::encode(&now_ms));
            state.revoked.insert(link);
            tracing::info!(%id, %link, "narrowed token revoked");
        }
        let record = state.baked.get_mut(&id).ok_or(RevokeError::Unknown(id))?;
        if link.is_none() && record.revoked_ms.is_none() {
            is_new = true;
            record.revoked_ms = Some(now_ms);
            batch.put(Table::Token.key(id.0), cbor::encode(record));
            tracing::info!(%id, name = %record.name, "token revoked");
        }
        let view = self.view(id, record)?;
        // Under the lock, so that records of one token are enqueued in their order.
        let event = SecurityEvent::TokenRevoked { token: id.0, narrowed: link.is_some() };
        let events = Vec::from_iter(is_new.then_some(DomainEvent::Security(event)));
        Ok((view, self.parts.journal.append(&events, batch)))
    }

    /// Says who calls with `text` from `source_ip`.
    ///
    /// # Errors
    ///
    /// See [`TokenRefusal`].
    pub fn check(&self, text: &str, source_ip: Option<IpAddr>) -> Result<Holder, TokenRefusal> {
        let token = Token::parse(text)?;
        let links = token.links(&self.parts.secret).ok_or(TokenRefusal::NotOurs)?;
        let restrictions = token.restrictions().to_vec();
        let purse = self.purse(&restrictions, &links);
        let holder = Holder { id: token.id(), links, restrictions, purse };
        if let Some(over) = self.is_over(&holder) {
            return Err(over);
        }
        for restriction in &holder.restrictions {
            if let Restriction::Sources(ranges) = restriction
                && !source_ip.is_some_and(|ip| ranges.iter().any(|range| range.contains(ip)))
            {
                return Err(TokenRefusal::Source { id: holder.id, source_ip });
            }
        }
        Ok(holder)
    }

    /// Why a token that was good once is not any more; `None` while it is.
    pub fn is_over(&self, holder: &Holder) -> Option<TokenRefusal> {
        let id = holder.id;
        {
            let state = self.state.read();
            match state.baked.get(&id) {
                // Its record is gone: a store of before it was baked was put back.
                None => return Some(TokenRefusal::NotOurs),
                Some(record) if record.revoked_ms.is_some() => {
                    return Some(TokenRefusal::Revoked(id));
                }
                Some(_) if holder.links.iter().any(|link| state.revoked.contains(link)) => {
                    return Some(TokenRefusal::Revoked(id));
                }
                Some(_) => {}
            }
        }
        let now = self.parts.clock.now().as_secs();
        let over = holder.expires().filter(|expires| *expires <= now)?;
        Some(TokenRefusal::Expired { id, seconds: now - over })
    }

    /// Tells of each revocation.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// What the token may spend; `None` if nothing bounds it.
    fn purse(&self, restrictions: &[Restriction], links: &[LinkId]) -> Option<Purse> {
        if !restrictions.iter().any(Restriction::bounds_spending) {
            return None;
        }
        let mut purse = Purse {
            ledger: Arc::clone(&self.ledger),
            budgets: budgets(restrictions, links),
            per_call_msat: None,
            payees: Vec::new(),
        };
        for restriction in restrictions {
            match restriction {
                Restriction::PerCall(msat) => {
                    let least = purse.per_call_msat.map_or(*msat, |other| other.min(*msat));
                    purse.per_call_msat = Some(least);
                }
                Restriction::Payees(payees) => purse.payees.push(payees.clone()),
                _ => {}
            }
        }
        Some(purse)
    }

    fn view(&self, id: TokenId, record: &Record) -> Result<TokenView, StoreError> {
        let restrictions = record.restrictions()?;
        let token = Token::bake(&self.parts.secret, id, restrictions.clone());
        let links = token.ok().and_then(|token| token.links(&self.parts.secret));
        let budgets = budgets(&restrictions, &links.unwrap_or_default());
        let budget = budgets.first().map(|(account, msat)| (*msat, self.ledger.account(*account)));
        Ok(TokenView {
            id,
            name: record.name.clone(),
            restrictions,
            created_ms: record.created_ms,
            revoked_ms: record.revoked_ms,
            budget,
        })
    }
}

impl Holder {
    /// The token that was baked.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Whether it may call `method`, a full name such as `tributary.v1.Payments/Pay`.
    pub fn may_call(&self, method: &str) -> bool {
        self.restrictions.iter().all(|restriction| match restriction {
            Restriction::Role(role) => role.has(method),
            Restriction::Methods(patterns) => patterns.iter().any(|one| one.matches(method)),
            _ => true,
        })
    }

    /// When its time is over, in seconds since the Unix epoch.
    pub fn expires(&self) -> Option<u64> {
        let times = self.restrictions.iter().filter_map(|restriction| match restriction {
            Restriction::Expires(seconds) => Some(*seconds),
            _ => None,
        });
        times.min()
    }

    /// What bounds its spending.
    pub fn purse(&self) -> Option<&Purse> {
        self.purse.as_ref()
    }

    /// Whether it may do everything, from everywhere and for ever: only such a token bakes.
    pub fn is_unrestricted(&self) -> bool {
        let admin = Restriction::Role(super::Role::Admin);
        self.restrictions.iter().all(|restriction| *restriction == admin)
    }
}

impl Record {
    fn restrictions(&self) -> Result<Vec<Restriction>, StoreError> {
        let read = |(kind, body): &(u8, serde_bytes::ByteBuf)| Restriction::decode(*kind, body);
        let read: Result<_, RestrictionError> = self.restrictions.iter().map(read).collect();
        read.map_err(|error| cbor::corrupt(Table::Token, &error))
    }
}

/// The budgets among `restrictions`, each with the link that it made.
fn budgets(restrictions: &[Restriction], links: &[LinkId]) -> Vec<(AccountId, u64)> {
    // The first link is that of the id.
    let made = restrictions.iter().zip(links.iter().skip(1));
    made.filter_map(|(restriction, link)| match restriction {
        Restriction::Budget { msat, .. } => Some((*link, *msat)),
        _ => None,
    })
    .collect()
}

fn id_of(table: Table, key: &[u8]) -> Result<[u8; 16], StoreError> {
    let id = table.rest(key).and_then(|rest| rest.try_into().ok());
    id.ok_or_else(|| cbor::corrupt(table, &"its id is odd"))
}
