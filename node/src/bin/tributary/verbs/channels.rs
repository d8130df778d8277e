//! `channel open`, `list`, `watch`, `close`, `policy`.

use proto::v1::{
    Channel, ChannelFilter, ChannelState, CloseChannelRequest, FundingKind, ListChannelsRequest,
    ListChannelsResponse, OpenChannelRequest, UpdatePolicyRequest, WatchChannelRequest,
};

use super::{money, note_cut, pages};
use crate::args::{
    ChannelCloseArgs, ChannelListArgs, ChannelOpenArgs, ChannelPolicyArgs, ChannelStateArg,
    ChannelVerb,
};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, table, text};

/// Digits of an id that are enough to look for it.
const PREFIX_LEN_MIN: usize = 4;

/// Runs a verb on channels.
pub async fn run(verb: ChannelVerb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        ChannelVerb::Open(args) => open(client, out, args).await,
        ChannelVerb::List(args) => list(client, out, &args).await,
        ChannelVerb::Watch { channel } => watch(client, out, &channel).await,
        ChannelVerb::Close(args) => close(client, out, args).await,
        ChannelVerb::Policy(args) => policy(client, out, args).await,
    }
}

async fn open(client: &Client, out: Output, args: ChannelOpenArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let funding = if args.batch { FundingKind::Batch } else { FundingKind::OwnTransaction };
    let request = OpenChannelRequest {
        idempotency_key: key.clone(),
        node_id: args.peer.node_id.into(),
        address: args.peer.address,
        capacity_sat: args.capacity.0,
        push_msat: args.push.0,
        public: args.public,
        feerate_sat_per_vb: args.feerate,
        funding: funding.into(),
        zero_reserve: args.zero_reserve,
        policy: None,
    };
    let mut channel = money(client.channels().open(request).await, &key)?;
    if args.wait {
        let request = WatchChannelRequest { record_id: channel.record_id.clone() };
        let mut states = client.channels().watch(request).await?.into_inner();
        while let Some(state) = states.message().await? {
            out.note(&text::channel_line(&state));
            channel = state;
            if matches!(channel.state(), ChannelState::Active | ChannelState::Closed) {
                break;
            }
        }
    }
    out.answer(&channel, text::channel)?;
    match (args.wait, channel.state()) {
        (true, ChannelState::Closed) => {
            let detail = channel.closing.map(|closing| closing.detail);
            Err(CliError::Failed(format!(
                "the channel was not opened: {}",
                detail.unwrap_or_else(|| "no cause given".to_owned())
            )))
        }
        _ => Ok(()),
    }
}

async fn list(client: &Client, out: Output, args: &ChannelListArgs) -> Result<(), CliError> {
    let filter = ChannelFilter {
        states: args.state.iter().map(|state| state.code()).collect(),
        counterparty_node_id: args.peer.map(Vec::from),
        public: None,
    };
    let (channels, next_page_token) = filtered(client, args.list.limit, filter).await?;
    let response = ListChannelsResponse { channels, next_page_token };
    out.answer(&response, |r| table::channels(&r.channels))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

async fn watch(client: &Client, out: Output, channel: &str) -> Result<(), CliError> {
    let request = WatchChannelRequest { record_id: record_id(client, channel).await? };
    let mut states = client.channels().watch(request).await?.into_inner();
    while let Some(channel) = states.message().await? {
        out.item(&channel, |channel| {
            let at = text::utc(channel.state_changed_unix_ms);
            format!("{at} {}", text::channel_line(channel))
        })?;
    }
    Ok(())
}

async fn close(client: &Client, out: Output, args: ChannelCloseArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let request = CloseChannelRequest {
        idempotency_key: key.clone(),
        record_id: record_id(client, &args.channel).await?,
        force: args.force,
        address: args.address,
        feerate_sat_per_vb: args.feerate,
    };
    let channel = money(client.channels().close(request).await, &key)?;
    out.answer(&channel, text::channel)
}

async fn policy(client: &Client, out: Output, args: ChannelPolicyArgs) -> Result<(), CliError> {
    let base = args.base.map(|base| {
        u32::try_from(base.0).map_err(|_| {
            CliError::Usage("--base is at most 4294967295msat (4294967.295sat)".to_owned())
        })
    });
    let request = UpdatePolicyRequest {
        idempotency_key: args.mutation.key(),
        record_id: record_id(client, &args.channel).await?,
        fee_base_msat: base.transpose()?,
        fee_proportional_millionths: args.ppm,
        cltv_expiry_delta: args.cltv_delta,
    };
    let channel = client.channels().update_policy(request).await?;
    out.answer(&channel.into_inner(), text::channel)
}

async fn filtered(
    client: &Client,
    limit: u32,
    filter: ChannelFilter,
) -> Result<(Vec<Channel>, Option<String>), CliError> {
    pages(limit, |size, token| {
        let mut service = client.channels();
        let request = ListChannelsRequest {
            filter: Some(filter.clone()),
            page_size: Some(size),
            page_token: token,
        };
        async move {
            let page = service.list(request).await?.into_inner();
            Ok((page.channels, page.next_page_token))
        }
    })
    .await
}

/// Finds a channel by its record id, or by the first digits of its record or channel id.
pub(super) async fn record_id(client: &Client, text: &str) -> Result<Vec<u8>, CliError> {
    let text = text.to_ascii_lowercase();
    if let Some(id) = hex::decode(&text).ok().filter(|id| id.len() == 16) {
        return Ok(id);
    }
    check_prefix(&text)?;
    let (channels, _) = filtered(client, u32::MAX, ChannelFilter::default()).await?;
    chosen(&text, &channels)
}

fn check_prefix(text: &str) -> Result<(), CliError> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    match digits && (PREFIX_LEN_MIN..=64).contains(&text.len()) {
        true => Ok(()),
        false => Err(CliError::Usage(format!(
            "{text:?} names no channel: give its record or channel id, or the first {PREFIX_LEN_MIN} digits or more"
        ))),
    }
}

/// The one channel whose record or channel id begins with `text`.
fn chosen(text: &str, channels: &[Channel]) -> Result<Vec<u8>, CliError> {
    let fits = |id: &[u8]| hex::encode(id).starts_with(text);
    let found: Vec<_> = channels
        .iter()
        .filter(|c| fits(&c.record_id) || c.channel_id.as_deref().is_some_and(fits))
        .collect();
    match &found[..] {
        [one] => Ok(one.record_id.clone()),
        [] => Err(CliError::Failed(format!(
            "no channel begins with {text}; see `tributary channel list`"
        ))),
        several => {
            let ids: Vec<_> = several.iter().map(|c| hex::encode(&c.record_id)).collect();
            Err(CliError::Usage(format!(
                "several channels begin with {text}; give more digits: {}",
                ids.join(", ")
            )))
        }
    }
}

impl ChannelStateArg {
    fn code(self) -> i32 {
        let state = match self {
            Self::Opening => ChannelState::Opening,
            Self::AwaitingConfirmation => ChannelState::AwaitingConfirmation,
            Self::Active => ChannelState::Active,
            Self::Inactive => ChannelState::Inactive,
            Self::Closing => ChannelState::Closing,
            Self::ForceClosing => ChannelState::ForceClosing,
            Self::Closed => ChannelState::Closed,
        };
        state as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_digits_must_mean_one_channel() {
        let channel = |record: u8, id: Option<u8>| Channel {
            record_id: vec![record; 16],
            channel_id: id.map(|id| vec![id; 32]),
            ..Channel::default()
        };
        let mut close = channel(0xaa, None);
        close.record_id[15] = 0xff;
        let all = [channel(0xaa, Some(0x11)), channel(0xbb, None), close];
        assert_eq!(chosen("bbbb", &all).unwrap(), vec![0xbb; 16]);
        assert_eq!(chosen("1111", &all).unwrap(), vec![0xaa; 16]);
        assert_eq!(chosen(&"1".repeat(64), &all).unwrap(), vec![0xaa; 16]);
        assert_eq!(chosen("aaaa", &all).unwrap_err().exit_code(), 2);
        assert_eq!(chosen("cccc", &all).unwrap_err().exit_code(), 1);
        for bad in ["aaa", "xyzw", "", &"a".repeat(65)] {
            assert_eq!(check_prefix(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
