//! Following the record of one thing through its life: durable records only.

use tokio::sync::watch;

use super::Journal;
use crate::store::{StoreError, Ticket};

/// A record's newest version, and the ticket after which it may be shown.
pub type Latest<R> = (R, Ticket);

/// What comes to an end.
pub trait Ends {
    /// Whether this version is the last.
    fn has_ended(&self) -> bool;
}

/// Follows one record. Versions that follow each other fast may be left out, the last one never.
pub struct Follow<R> {
    latest: watch::Receiver<Latest<R>>,
    journal: Journal,
    /// The last version was shown.
    is_over: bool,
}

impl<R: Ends + Clone> Follow<R> {
    /// Follows what is sent to `latest`.
    pub fn new(latest: watch::Receiver<Latest<R>>, journal: Journal) -> Self {
        Self { latest, journal, is_over: false }
    }

    /// Of a record that nobody changes any more.
    pub fn of_last(record: R, ticket: Ticket, journal: Journal) -> Self {
        Self::new(watch::Sender::new((record, ticket)).subscribe(), journal)
    }

    /// The record now, once it is durable.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn current(&mut self) -> Result<R, StoreError> {
        let (record, ticket) = self.latest.borrow_and_update().clone();
        self.journal.durable(ticket).await?;
        self.is_over = record.has_ended();
        Ok(record)
    }

    /// The next record that differs; `None` after the last one.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn next(&mut self) -> Result<Option<R>, StoreError> {
        if self.is_over || self.latest.changed().await.is_err() {
            return Ok(None);
        }
        self.current().await.map(Some)
    }

    /// The last record.
    ///
    /// # Errors
    ///
    /// If the store fails first, or the node stops. What became of it is then known after a
    /// restart.
    pub async fn outcome(&mut self) -> Result<R, StoreError> {
        let (record, ticket) = match self.latest.wait_for(|(record, _)| record.has_ended()).await {
            Ok(latest) => latest.clone(),
            Err(_) => return Err(StoreError::Failed("node is stopping".into())),
        };
        self.journal.durable(ticket).await?;
        self.is_over = true;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::environment::SystemClock;
    use crate::store::{Committer, MemoryDisk};

    impl Ends for u8 {
        fn has_ended(&self) -> bool {
            *self == 9
        }
    }

    #[tokio::test]
    async fn the_last_version_is_shown_however_fast_it_comes() {
        let committer = Committer::new(Arc::new(MemoryDisk::new().open()));
        drop(committer.run_thread().unwrap());
        let journal = Journal::open(committer.clone(), Arc::new(SystemClock)).unwrap();
        let record = |number: u8| (number, committer.now());
        let latest = watch::Sender::new(record(1));
        let mut follow = Follow::new(latest.subscribe(), journal.clone());
        let mut late = Follow::new(latest.subscribe(), journal.clone());
        assert_eq!(follow.current().await.unwrap(), 1);
        let _before = latest.send_replace(record(2));
        assert_eq!(follow.next().await.unwrap(), Some(2));
        // Before anybody asks for the next one, it is over.
        let _before = latest.send_replace(record(9));
        drop(latest);
        assert_eq!(follow.next().await.unwrap(), Some(9));
        assert_eq!(follow.next().await.unwrap(), None);
        assert_eq!(late.outcome().await.unwrap(), 9);
        assert_eq!(late.next().await.unwrap(), None);
        let mut ended = Follow::of_last(9, committer.now(), journal);
        assert_eq!(ended.current().await.unwrap(), 9);
        assert_eq!(ended.next().await.unwrap(), None);
    }
}
