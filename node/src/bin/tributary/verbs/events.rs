//! `events`.

use std::cell::Cell;

use proto::v1::{EventKind, ListEventsRequest, ListEventsResponse, SubscribeRequest};

use super::{note_cut, pages};
use crate::args::{EventKindArg, EventsArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, table, text};

/// Shows events that are kept, or follows the log.
pub async fn run(client: &Client, out: Output, args: &EventsArgs) -> Result<(), CliError> {
    let kinds: Vec<i32> = args.kind.iter().map(|kind| kind.code()).collect();
    if args.follow {
        let request = SubscribeRequest { after_sequence: args.after, kinds };
        let mut events = client.events().subscribe(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            out.item(&event, text::event_line)?;
        }
        return Ok(());
    }
    // Each page tells which sequences are kept; the last one knows best.
    let kept = Cell::new((None, None));
    let (events, next_page_token) = pages(args.list.limit, |size, token| {
        let mut service = client.events();
        let request = ListEventsRequest {
            // A token says by itself where to go on.
            after_sequence: args.after.filter(|_| token.is_none()),
            kinds: kinds.clone(),
            page_size: Some(size),
            page_token: token,
        };
        let kept = &kept;
        async move {
            let page = service.list(request).await?.into_inner();
            kept.set((page.oldest_sequence, page.newest_sequence));
            Ok((page.events, page.next_page_token))
        }
    })
    .await?;
    let (oldest_sequence, newest_sequence) = kept.get();
    let response = ListEventsResponse { events, next_page_token, oldest_sequence, newest_sequence };
    out.answer(&response, |r| table::events(&r.events))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

impl EventKindArg {
    pub fn code(self) -> i32 {
        let kind = match self {
            Self::Payment => EventKind::Payment,
            Self::Invoice => EventKind::Invoice,
            Self::Channel => EventKind::Channel,
            Self::Wallet => EventKind::Wallet,
            Self::Chain => EventKind::Chain,
            Self::Tower => EventKind::Tower,
            Self::Node => EventKind::Node,
            Self::Batch => EventKind::Batch,
            Self::Swap => EventKind::Swap,
            Self::Webhook => EventKind::Webhook,
            Self::Payout => EventKind::Payout,
            Self::Security => EventKind::Security,
        };
        kind as i32
    }
}
