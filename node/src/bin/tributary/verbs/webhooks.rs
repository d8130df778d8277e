//! `webhook create`, `list`, `show`, `update`, `delete`, `rotate`, `test`, `dead`, `replay`.

use proto::v1::{
    CreateWebhookRequest, DeleteWebhookRequest, EventKinds, GetWebhookRequest,
    ListDeadLettersRequest, ListDeadLettersResponse, ListWebhooksRequest, ListWebhooksResponse,
    ReplayWebhookRequest, RotateWebhookSecretRequest, SendTestRequest, UpdateWebhookRequest,
    replay_webhook_request,
};

use super::{money, note_cut, pages};
use crate::args::ListArgs;
use crate::args::webhook::{
    WebhookCreateArgs, WebhookDeadArgs, WebhookOneArgs, WebhookReplayArgs, WebhookRotateArgs,
    WebhookShowArgs, WebhookUpdateArgs, WebhookVerb,
};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, webhook};

/// Runs one of them.
pub async fn run(verb: WebhookVerb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        WebhookVerb::Create(args) => create(client, out, args).await,
        WebhookVerb::List(args) => list(client, out, &args).await,
        WebhookVerb::Show(args) => show(client, out, &args).await,
        WebhookVerb::Update(args) => update(client, out, args).await,
        WebhookVerb::Delete(args) => delete(client, out, &args).await,
        WebhookVerb::Rotate(args) => rotate(client, out, &args).await,
        WebhookVerb::Test(args) => test(client, out, &args).await,
        WebhookVerb::Dead(args) => dead(client, out, &args).await,
        WebhookVerb::Replay(args) => replay(client, out, &args).await,
    }
}

async fn create(client: &Client, out: Output, args: WebhookCreateArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let request = CreateWebhookRequest {
        idempotency_key: key.clone(),
        url: args.url,
        description: args.description,
        kinds: args.kind.iter().map(|kind| kind.code()).collect(),
        after_sequence: args.after,
    };
    let made = money(client.webhooks().create(request).await, &key)?;
    out.answer(&made, webhook::with_secret)
}

async fn list(client: &Client, out: Output, args: &ListArgs) -> Result<(), CliError> {
    let (webhooks, next_page_token) = pages(args.limit, |size, page_token| {
        let mut service = client.webhooks();
        let request = ListWebhooksRequest { page_size: Some(size), page_token };
        async move {
            let page = service.list(request).await?.into_inner();
            Ok((page.webhooks, page.next_page_token))
        }
    })
    .await?;
    let list = ListWebhooksResponse { webhooks, next_page_token };
    out.answer(&list, |list| webhook::list(&list.webhooks))?;
    note_cut(out, &list.next_page_token);
    Ok(())
}

async fn show(client: &Client, out: Output, args: &WebhookShowArgs) -> Result<(), CliError> {
    let request = GetWebhookRequest { endpoint_id: args.endpoint.into() };
    let found = client.webhooks().get(request).await?.into_inner();
    out.answer(&found, webhook::one)
}

async fn update(client: &Client, out: Output, args: WebhookUpdateArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let kinds: Vec<i32> = args.kind.iter().map(|kind| kind.code()).collect();
    let request = UpdateWebhookRequest {
        idempotency_key: key.clone(),
        endpoint_id: args.endpoint.into(),
        url: args.url,
        description: args.description,
        filter: (args.all_kinds || !kinds.is_empty()).then_some(EventKinds { kinds }),
        enabled: (args.enable || args.disable).then_some(args.enable),
    };
    let changed = money(client.webhooks().update(request).await, &key)?;
    out.answer(&changed, webhook::one)
}

async fn delete(client: &Client, out: Output, args: &WebhookOneArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let endpoint_id = args.endpoint.into();
    let request = DeleteWebhookRequest { idempotency_key: key.clone(), endpoint_id };
    let gone = money(client.webhooks().delete(request).await, &key)?;
    out.answer(&gone, |_| "forgotten, with everything that waited for it".into())
}

async fn rotate(client: &Client, out: Output, args: &WebhookRotateArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let request = RotateWebhookSecretRequest {
        idempotency_key: key.clone(),
        endpoint_id: args.endpoint.into(),
        grace_seconds: args.grace,
    };
    let rotated = money(client.webhooks().rotate_secret(request).await, &key)?;
    out.answer(&rotated, webhook::with_secret)
}

async fn test(client: &Client, out: Output, args: &WebhookOneArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let endpoint_id = args.endpoint.into();
    let request = SendTestRequest { idempotency_key: key.clone(), endpoint_id };
    let outcome = money(client.webhooks().send_test(request).await, &key)?;
    out.answer(&outcome, webhook::test)?;
    match outcome.error {
        None => Ok(()),
        Some(error) => Err(CliError::Failed(format!("the test event was not taken: {error}"))),
    }
}

async fn dead(client: &Client, out: Output, args: &WebhookDeadArgs) -> Result<(), CliError> {
    let (dead_letters, next_page_token) = pages(args.list.limit, |size, page_token| {
        let mut service = client.webhooks();
        let request = ListDeadLettersRequest {
            endpoint_id: args.endpoint.into(),
            page_size: Some(size),
            page_token,
        };
        async move {
            let page = service.list_dead_letters(request).await?.into_inner();
            Ok((page.dead_letters, page.next_page_token))
        }
    })
    .await?;
    let list = ListDeadLettersResponse { dead_letters, next_page_token };
    out.answer(&list, |list| webhook::dead_letters(&list.dead_letters))?;
    note_cut(out, &list.next_page_token);
    Ok(())
}

async fn replay(client: &Client, out: Output, args: &WebhookReplayArgs) -> Result<(), CliError> {
    use replay_webhook_request::What;
    let key = args.mutation.key();
    let request = ReplayWebhookRequest {
        idempotency_key: key.clone(),
        endpoint_id: args.endpoint.into(),
        what: Some(args.after.map_or(What::DeadLetters(args.dead), What::AfterSequence)),
    };
    let replayed = money(client.webhooks().replay(request).await, &key)?;
    out.answer(&replayed, webhook::one)
}
