//! Pages: sizes, opaque tokens, and exports that page inside.
//!
//! A token holds a version, the list it belongs to, a digest of the filter, and a position of
//! the service's own. Clients hand it back as it is; any change to it or to the filter is
//! refused rather than answered with a page of another list.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bitcoin::hashes::{Hash, sha256};
use futures::stream;
use tonic::Status;

use super::convert::within;
use super::status::{Reason, Refusal};

/// Layout of a token.
const VERSION: u8 = 1;
/// Bytes of the filter's digest.
const DIGEST_LEN: usize = 8;
/// Things on a page when nothing is said.
const SIZE_DEFAULT: u32 = 100;
/// Most things on a page.
pub(super) const SIZE_MAX: u32 = 1_000;

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

/// Which list a token belongs to. The numbers are in tokens that clients hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Peers = 1,
    Channels = 2,
    Payments = 3,
    Invoices = 4,
    Events = 5,
    Transactions = 6,
    Unspent = 7,
    Memberships = 8,
    HostedBatches = 9,
    Swaps = 10,
    Tokens = 11,
    Webhooks = 12,
    DeadLetters = 13,
    Payouts = 14,
    PayoutLines = 15,
}

/// Reads a page size.
pub(super) fn size(asked: Option<u32>) -> Result<usize, Refusal> {
    let asked = asked.unwrap_or(SIZE_DEFAULT);
    let size = within(Reason::PageSizeOutOfRange, "page_size", asked, 1..=SIZE_MAX)?;
    Ok(size as usize)
}

/// Writes the token of the page that begins at `position`.
pub(super) fn token(list: List, filter: &impl Debug, position: &[u8]) -> String {
    let mut bytes = vec![VERSION, list as u8];
    bytes.extend_from_slice(&digest(filter));
    bytes.extend_from_slice(position);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads where a page begins; `None` for the first.
pub(super) fn position(
    list: List,
    filter: &impl Debug,
    token: Option<&str>,
) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(token) = token else { return Ok(None) };
    let refuse = |why| Refusal::new(Reason::PageTokenInvalid, why);
    let bytes =
        URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse("page_token is not one of this node"))?;
    let (head, rest) = bytes
        .split_at_checked(2)
        .filter(|(head, _)| *head == [VERSION, list as u8])
        .ok_or_else(|| refuse("page_token belongs to another list"))?;
    debug_assert_eq!(head.len(), 2);
    let (made_with, position) =
        rest.split_at_checked(DIGEST_LEN).ok_or_else(|| refuse("page_token is cut short"))?;
    if made_with != digest(filter) {
        return Err(refuse("page_token was made with another filter"));
    }
    Ok(Some(position.to_vec()))
}

/// Reads the position of a token as one of the service's own, which this room wrote.
pub(super) fn own_position<const N: usize>(
    position: Option<Vec<u8>>,
) -> Result<Option<[u8; N]>, Refusal> {
    position
        .map(|bytes| {
            <[u8; N]>::try_from(bytes).map_err(|_| {
                Refusal::new(Reason::PageTokenInvalid, "page_token is not one of this list")
            })
        })
        .transpose()
}

/// Cuts a page out of `all`, which ascends by `id`: at most `size` things from `from` on, and the
/// id the next page begins with.
pub(super) fn cut<T>(
    all: Vec<T>,
    from: Option<[u8; 32]>,
    size: usize,
    id: impl Fn(&T) -> [u8; 32],
) -> (Vec<T>, Option<[u8; 32]>) {
    let mut rest = all.into_iter().filter(|one| from.is_none_or(|from| id(one) >= from));
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next = rest.next().map(|one| id(&one));
    (page, next)
}

fn digest(filter: &impl Debug) -> [u8; DIGEST_LEN] {
    let hash = sha256::Hash::hash(format!("{filter:?}").as_bytes()).to_byte_array();
    let mut digest = [0; DIGEST_LEN];
    digest.copy_from_slice(&hash[..DIGEST_LEN]);
    digest
}

/// Streams everything of a list: takes the next page when the caller has read the last.
///
/// `fetch` takes where to begin and gives a page and where the next begins.
pub(super) fn export<T, F, Fetching>(fetch: F) -> Answers<T>
where
    T: Send + 'static,
    F: FnMut(Option<Vec<u8>>) -> Fetching + Send + 'static,
    Fetching: Future<Output = Result<(Vec<T>, Option<Vec<u8>>), Refusal>> + Send,
{
    struct State<T, F> {
        ready: VecDeque<T>,
        next: Option<Option<Vec<u8>>>,
        fetch: F,
    }
    let start = State { ready: VecDeque::new(), next: Some(None), fetch };
    Box::pin(stream::try_unfold(start, |mut state| async move {
        loop {
            if let Some(one) = state.ready.pop_front() {
                return Ok(Some((one, state)));
            }
            let Some(from) = state.next.take() else {
                return Ok(None);
            };
            let (page, next) = (state.fetch)(from).await?;
            state.ready = page.into();
            state.next = next.map(Some);
        }
    }))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn refused(result: Result<Option<Vec<u8>>, Refusal>) -> bool {
        result.is_err_and(|refusal| refusal.reason() == Reason::PageTokenInvalid)
    }

    #[test]
    fn a_token_leads_back_to_its_position() {
        let token = token(List::Payments, &"filter", b"here");
        let read = position(List::Payments, &"filter", Some(&token)).unwrap();
        assert_eq!(read.as_deref(), Some(&b"here"[..]));
        assert_eq!(position(List::Payments, &"filter", None), Ok(None));
        assert_eq!(own_position::<4>(read.clone()), Ok(Some(*b"here")));
        assert!(own_position::<5>(read).is_err());
    }

    #[test]
    fn a_token_is_good_for_its_own_list_and_filter_only() {
        let token = token(List::Payments, &"filter", b"here");
        assert!(refused(position(List::Invoices, &"filter", Some(&token))));
        assert!(refused(position(List::Payments, &"other", Some(&token))));
        assert!(refused(position(List::Payments, &"filter", Some(&token[..6]))));
        for bad in ["", "%%", "AA", &"A".repeat(2_000)] {
            assert!(refused(position(List::Payments, &"filter", Some(bad))), "{bad}");
        }
    }

    #[test]
    fn a_page_has_1_to_1000_things() {
        assert_eq!(size(None), Ok(100));
        assert_eq!(size(Some(1_000)), Ok(1_000));
        for bad in [0, 1_001, u32::MAX] {
            assert_eq!(size(Some(bad)).unwrap_err().reason(), Reason::PageSizeOutOfRange);
        }
    }

    #[tokio::test]
    async fn an_export_gives_every_page_and_ends() {
        let export = export(|from| async move {
            let at = from.map_or(0, |bytes| bytes[0]);
            Ok((vec![at, at + 1], (at < 4).then(|| vec![at + 2])))
        });
        let all: Vec<u8> = export.try_collect().await.unwrap();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn an_export_that_fails_says_so() {
        let export = export(|from| async move {
            match from {
                None => Ok((vec![1], Some(vec![1]))),
                Some(_) => Err(Refusal::new(Reason::StoreFailed, "gone")),
            }
        });
        let result: Result<Vec<i32>, _> = export.try_collect().await;
        assert_eq!(result.unwrap_err().code(), tonic::Code::Internal);
    }
}
