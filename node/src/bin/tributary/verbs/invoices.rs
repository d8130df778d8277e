//! `invoice`, `invoices`, `offer`, `decode`, `hold`.

use proto::v1::{
    CancelHoldRequest, CreateInvoiceRequest, CreateOfferRequest, DecodeRequest,
    ListInvoicesRequest, ListInvoicesResponse, LookupInvoiceRequest, SettleHoldRequest,
    create_invoice_request::About,
};

use super::{money, note_cut, pages};
use crate::args::{DecodeArgs, HoldVerb, InvoiceArgs, InvoicesArgs, OfferArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, table, text};

/// Creates an invoice.
pub async fn create(client: &Client, out: Output, args: InvoiceArgs) -> Result<(), CliError> {
    let about = match (args.description, args.description_hash) {
        (Some(words), _) => Some(About::Description(words)),
        (None, Some(hash)) => Some(About::DescriptionHash(hash.into())),
        (None, None) => None,
    };
    let request = CreateInvoiceRequest {
        idempotency_key: args.mutation.key(),
        amount_msat: args.amount.map(|amount| amount.0),
        about,
        expiry_seconds: args.expiry,
        min_final_cltv_expiry_delta: args.min_final_cltv,
        payment_hash: args.hold.map(Vec::from),
    };
    let invoice = client.payments().create_invoice(request).await?;
    out.answer(&invoice.into_inner(), text::invoice)
}

/// Lists invoices, or shows one.
pub async fn list(client: &Client, out: Output, args: &InvoicesArgs) -> Result<(), CliError> {
    if let Some(hash) = args.hash {
        let request = LookupInvoiceRequest { payment_hash: hash.into() };
        let invoice = client.payments().lookup_invoice(request).await?;
        return out.answer(&invoice.into_inner(), text::invoice);
    }
    let (invoices, next_page_token) = pages(args.list.limit, |size, token| {
        let mut service = client.payments();
        async move {
            let request =
                ListInvoicesRequest { filter: None, page_size: Some(size), page_token: token };
            let page = service.list_invoices(request).await?.into_inner();
            Ok((page.invoices, page.next_page_token))
        }
    })
    .await?;
    let response = ListInvoicesResponse { invoices, next_page_token };
    out.answer(&response, |r| table::invoices(&r.invoices))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

/// Creates an offer.
pub async fn offer(client: &Client, out: Output, args: OfferArgs) -> Result<(), CliError> {
    let request = CreateOfferRequest {
        idempotency_key: args.mutation.key(),
        amount_msat: args.amount.map(|amount| amount.0),
        description: args.description,
        expiry_seconds: args.expiry,
    };
    let offer = client.payments().create_offer(request).await?;
    out.answer(&offer.into_inner(), text::offer)
}

/// Shows what an invoice or offer says.
pub async fn decode(client: &Client, out: Output, args: DecodeArgs) -> Result<(), CliError> {
    let request = DecodeRequest { text: args.text };
    let decoded = client.payments().decode(request).await?;
    out.answer(&decoded.into_inner(), text::decoded)
}

/// Takes or gives back a held payment.
pub async fn hold(client: &Client, out: Output, verb: HoldVerb) -> Result<(), CliError> {
    let invoice = match verb {
        HoldVerb::Settle { preimage, mutation } => {
            let key = mutation.key();
            let request =
                SettleHoldRequest { idempotency_key: key.clone(), preimage: preimage.into() };
            money(client.payments().settle_hold(request).await, &key)?
        }
        HoldVerb::Cancel { hash, mutation } => {
            let key = mutation.key();
            let request =
                CancelHoldRequest { idempotency_key: key.clone(), payment_hash: hash.into() };
            money(client.payments().cancel_hold(request).await, &key)?
        }
    };
    out.answer(&invoice, text::invoice)
}
