//! `batch open`, `close`, `policy`.

use proto::v1::{
    CloseHostedBatchRequest, GetBatchPolicyRequest, OpenHostedBatchRequest, SetBatchPolicyRequest,
};

use super::batches::{PREFIX_LEN_MIN, all_hosted};
use super::money;
use crate::args::{BatchPolicyArgs, MutationArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, batch};

pub async fn open(
    client: &Client,
    out: Output,
    gathering_ms: Option<u64>,
    mutation: &MutationArgs,
) -> Result<(), CliError> {
    let key = mutation.key();
    let request = OpenHostedBatchRequest { idempotency_key: key.clone(), gathering_ms };
    let opened = money(client.batches().open_hosted(request).await, &key)?;
    out.answer(&opened, |opened| batch::hosted(std::slice::from_ref(opened)))
}

pub async fn close(
    client: &Client,
    out: Output,
    wanted: &str,
    mutation: &MutationArgs,
) -> Result<(), CliError> {
    if wanted.len() < PREFIX_LEN_MIN {
        return Err(CliError::Usage(format!("give {PREFIX_LEN_MIN} digits of the id at least")));
    }
    let begins = wanted.to_lowercase();
    let all = all_hosted(client).await?.into_iter();
    let mut found = all.filter(|batch| hex::encode(&batch.batch_id).starts_with(&begins));
    let batch_id = match (found.next(), found.next()) {
        (Some(one), None) => one.batch_id,
        (Some(_), Some(_)) => {
            return Err(CliError::Usage(format!("{wanted} means several; give more digits")));
        }
        (None, _) => {
            let none = format!("no batch begins with {wanted}; see `batch hosted`");
            return Err(CliError::Usage(none));
        }
    };
    let key = mutation.key();
    let request = CloseHostedBatchRequest { idempotency_key: key.clone(), batch_id };
    let closed = money(client.batches().close_hosted(request).await, &key)?;
    out.answer(&closed, |closed| batch::hosted(std::slice::from_ref(closed)))
}

pub async fn policy(client: &Client, out: Output, args: &BatchPolicyArgs) -> Result<(), CliError> {
    let policy = if args.changes() {
        let key = args.mutation.key();
        let request = SetBatchPolicyRequest {
            idempotency_key: key.clone(),
            users_max: args.users,
            gathering_ms: args.gather,
            capacity_min_sat: args.capacity_min.map(|sat| sat.0),
            capacity_max_sat: args.capacity_max.map(|sat| sat.0),
            fee_sat: args.fee.map(|sat| sat.0),
            life_blocks: args.life,
        };
        money(client.batches().set_policy(request).await, &key)?
    } else {
        client.batches().get_policy(GetBatchPolicyRequest {}).await?.into_inner()
    };
    out.answer(&policy, batch::policy)
}
