//! `tributary.v1.Payments`: ask for payments, make them, follow them.
//!
//! What payments and invoices look like to a caller is in `payment_view.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use proto::v1;
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::calls::About;
use super::convert::{idempotency_key, payment_hash, payment_id, preimage};
use super::mutation::{once, once_answered, once_beside, to_the_end};
use super::page::{self, Answers, List};
use super::payment_requests::{
    amount, create_invoice, invoice_filter, parts_max, pay_request, payment_filter, route_target,
};
use super::payment_view::{invoice, offer, payment, route};
use super::requests::{create_request, decoded, payment_request, quote, quote_ask};
use super::server::{Door, RpcParts, stopping};
use super::status::{Reason, Refusal};
use crate::lightning::types::{PaymentHash, PaymentId};
use crate::payments::{CreateOffer, InvoiceFilter, PaymentFilter, PaymentWatch};
use crate::requests::PartKeys;

/// The service.
pub(super) struct PaymentsService {
    door: Door,
}

impl PaymentsService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }

    /// Starts a payment, or finds the one that an earlier call under the same key started.
    ///
    /// Starting is one synchronous step: a caller who hangs up comes before it or after it.
    fn start(
        &self,
        request: Request<v1::PayRequest>,
    ) -> Result<(Arc<RpcParts>, PaymentWatch), Refusal> {
        let purse = Caller::of(&request)?.purse();
        let request = request.into_inner();
        let parts = self.door.parts()?;
        let key = idempotency_key("Pay", &request.idempotency_key)
            .map_err(|refusal| refusal.money_may_have_moved(false))?;
        let request =
            pay_request(&parts, request).map_err(|refusal| refusal.money_may_have_moved(false))?;
        if let Some(first) = parts.payments.repetition(&request, Some(&key))? {
            return Ok((parts, first));
        }
        parts.require_synced()?;
        let watch = parts.payments.pay_from(&request, Some(&key), purse.as_ref())?;
        Ok((parts, watch))
    }
}

#[tonic::async_trait]
impl v1::payments_server::Payments for PaymentsService {
    async fn create_invoice(
        &self,
        request: Request<v1::CreateInvoiceRequest>,
    ) -> Result<Response<v1::Invoice>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("CreateInvoice", &request.idempotency_key)?;
        let create = create_invoice(request)?;
        let record = parts.payments.create_invoice(create, Some(&key)).await;
        let hash = record.map_err(Refusal::from)?.hash;
        Ok(Response::new(look_up_invoice(&parts, hash).await?))
    }

    async fn create_offer(
        &self,
        request: Request<v1::CreateOfferRequest>,
    ) -> Result<Response<v1::Offer>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("CreateOffer", &request.idempotency_key)?;
        let create = CreateOffer {
            amount_msat: request.amount_msat,
            description: request.description,
            expiry: request.expiry_seconds.map(Duration::from_secs),
        };
        let made = parts.payments.create_offer(create, Some(&key)).await;
        Ok(Response::new(offer(&made.map_err(Refusal::from)?)))
    }

    async fn decode(
        &self,
        request: Request<v1::DecodeRequest>,
    ) -> Result<Response<v1::DecodeResponse>, Status> {
        let parts = self.door.parts()?;
        let read = parts.requests.read(&request.into_inner().text).await.map_err(Refusal::from)?;
        let spendable_msat = parts.requests.spendable_msat();
        Ok(Response::new(decoded(&read, spendable_msat, parts.clock.now())))
    }

    async fn create_payment_request(
        &self,
        request: Request<v1::CreatePaymentRequestRequest>,
    ) -> Result<Response<v1::PaymentRequest>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("CreatePaymentRequest", &request.idempotency_key)?;
        let keys = PartKeys::of(&request.idempotency_key);
        let create = create_request(&request)?;
        let shared = Arc::clone(&parts);
        let work = async move {
            let made = shared.requests.create(&create, &keys).await?;
            Ok(payment_request(&made, create.description))
        };
        Ok(Response::new(once_answered(&parts, key, &request, work).await?))
    }

    async fn quote(
        &self,
        request: Request<v1::QuoteRequest>,
    ) -> Result<Response<v1::QuoteResponse>, Status> {
        let parts = self.door.parts()?;
        let ask = quote_ask(request.into_inner())?;
        let shared = Arc::clone(&parts);
        let asked = ask.clone();
        // A search that nobody waits for any more runs to its end, as others do.
        let quoted = to_the_end(&parts.tasks, async move {
            shared.requests.quote(&asked).await.map_err(Refusal::from)
        })
        .await?;
        Ok(Response::new(quote(&quoted, &ask)))
    }

    async fn pay(&self, request: Request<v1::PayRequest>) -> Result<Response<v1::Payment>, Status> {
        let wait = request.get_ref().wait() == v1::PayWait::Wait;
        let (parts, mut watch) = self.start(request)?;
        let record = if wait {
            tokio::select! {
                biased;
                record = watch.outcome() => record,
                () = parts.tasks.stopped() => {
                    return Err(stopping().money_may_have_moved(true).into());
                }
            }
        } else {
            watch.current().await
        };
        let record = record.map_err(recorded)?;
        let mut answer = Response::new(payment(&record));
        if let Some(hash) = record.hash {
            answer.extensions_mut().insert(About(hash));
        }
        Ok(answer)
    }

    type PayStreamStream = Answers<v1::Payment>;

    async fn pay_stream(
        &self,
        request: Request<v1::PayRequest>,
    ) -> Result<Response<Self::PayStreamStream>, Status> {
        let (parts, watch) = self.start(request)?;
        Ok(Response::new(states(parts, watch)))
    }

    type WatchPaymentStream = Answers<v1::Payment>;

    async fn watch_payment(
        &self,
        request: Request<v1::WatchPaymentRequest>,
    ) -> Result<Response<Self::WatchPaymentStream>, Status> {
        let parts = self.door.parts()?;
        let id = payment_id("payment_id", &request.into_inner().payment_id)?;
        let watch = parts.payments.watch(id).map_err(Refusal::from)?;
        let watch = watch.ok_or_else(|| unknown_payment(id))?;
        Ok(Response::new(states(parts, watch)))
    }

    async fn get_payment(
        &self,
        request: Request<v1::GetPaymentRequest>,
    ) -> Result<Response<v1::Payment>, Status> {
        let parts = self.door.parts()?;
        let id = payment_id("payment_id", &request.into_inner().payment_id)?;
        let record = parts.payments.get(id).await.map_err(Refusal::from)?;
        Ok(Response::new(payment(&record.ok_or_else(|| unknown_payment(id))?)))
    }

    async fn list_payments(
        &self,
        request: Request<v1::ListPaymentsRequest>,
    ) -> Result<Response<v1::ListPaymentsResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let filter = payment_filter(request.filter)?;
        let size = page::size(request.page_size)?;
        let from = page::position(List::Payments, &filter, request.page_token.as_deref())?;
        let (payments, next) = list_payments(&parts, &filter, from, size).await?;
        let next_page_token = next.map(|next| page::token(List::Payments, &filter, &next));
        Ok(Response::new(v1::ListPaymentsResponse { payments, next_page_token }))
    }

    type ExportPaymentsStream = Answers<v1::Payment>;

    async fn export_payments(
        &self,
        request: Request<v1::ExportPaymentsRequest>,
    ) -> Result<Response<Self::ExportPaymentsStream>, Status> {
        let filter = Arc::new(payment_filter(request.into_inner().filter)?);
        let door = self.door.clone();
        door.parts()?;
        Ok(Response::new(page::export(move |from| {
            let (door, filter) = (door.clone(), Arc::clone(&filter));
            async move { list_payments(&*door.parts()?, &filter, from, page::SIZE_MAX as usize).await }
        })))
    }

    async fn settle_hold(
        &self,
        request: Request<v1::SettleHoldRequest>,
    ) -> Result<Response<v1::Invoice>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("SettleHold", &request.idempotency_key)?;
        let preimage = preimage("preimage", &request.preimage)?;
        let hash = preimage.hash();
        // Answers "unknown" before "not held".
        look_up_invoice(&parts, hash).await?;
        let shared = Arc::clone(&parts);
        let work = async move {
            shared.payments.settle(preimage).await?;
            Ok(())
        };
        once(&parts, key, &request, work, async { Ok(()) }).await?;
        Ok(Response::new(look_up_invoice(&parts, hash).await?))
    }

    async fn cancel_hold(
        &self,
        request: Request<v1::CancelHoldRequest>,
    ) -> Result<Response<v1::Invoice>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("CancelHold", &request.idempotency_key)?;
        let hash = payment_hash("payment_hash", &request.payment_hash)?;
        let shared = Arc::clone(&parts);
        let work = move |beside| async move {
            shared.payments.cancel_invoice(hash, beside).await?;
            Ok(())
        };
        once_beside(&parts, key, &request, work, async { Ok(()) }).await?;
        Ok(Response::new(look_up_invoice(&parts, hash).await?))
    }

    async fn lookup_invoice(
        &self,
        request: Request<v1::LookupInvoiceRequest>,
    ) -> Result<Response<v1::Invoice>, Status> {
        let parts = self.door.parts()?;
        let hash = payment_hash("payment_hash", &request.into_inner().payment_hash)?;
        Ok(Response::new(look_up_invoice(&parts, hash).await?))
    }

    async fn list_invoices(
        &self,
        request: Request<v1::ListInvoicesRequest>,
    ) -> Result<Response<v1::ListInvoicesResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let filter = invoice_filter(request.filter)?;
        let size = page::size(request.page_size)?;
        let from = page::position(List::Invoices, &filter, request.page_token.as_deref())?;
        let (invoices, next) = list_invoices(&parts, &filter, from, size).await?;
        let next_page_token = next.map(|next| page::token(List::Invoices, &filter, &next));
        Ok(Response::new(v1::ListInvoicesResponse { invoices, next_page_token }))
    }

    type ExportInvoicesStream = Answers<v1::Invoice>;

    async fn export_invoices(
        &self,
        request: Request<v1::ExportInvoicesRequest>,
    ) -> Result<Response<Self::ExportInvoicesStream>, Status> {
        let filter = Arc::new(invoice_filter(request.into_inner().filter)?);
        let door = self.door.clone();
        door.parts()?;
        Ok(Response::new(page::export(move |from| {
            let (door, filter) = (door.clone(), Arc::clone(&filter));
            async move { list_invoices(&*door.parts()?, &filter, from, page::SIZE_MAX as usize).await }
        })))
    }

    async fn estimate_route(
        &self,
        request: Request<v1::EstimateRouteRequest>,
    ) -> Result<Response<v1::EstimateRouteResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let (target, asked_msat) = route_target(&parts, request.target)?;
        let amount_msat = amount(request.amount_msat, asked_msat)?;
        let max_fee_msat = request.max_fee_msat;
        let max_parts = request.max_parts.map(parts_max).transpose()?;
        // The search is pure work on one core; the calls of others go on meanwhile.
        let shared = Arc::clone(&parts);
        let estimate = to_the_end(&parts.tasks, async move {
            let search = move || {
                let payments = &shared.payments;
                payments.estimate_route(target, amount_msat, max_fee_msat, max_parts)
            };
            tokio::task::spawn_blocking(search).await.map_err(|error| {
                Refusal::new(Reason::Internal, format_args!("the search broke off: {error}"))
            })
        })
        .await?;
        let estimate = estimate.ok_or_else(|| {
            let message = "no route carries this amount within the fee limit";
            Refusal::new(Reason::NoRoute, message).with("amount_msat", amount_msat)
        })?;
        Ok(Response::new(route(&estimate)))
    }
}

/// The store failed after the payment was recorded: its outcome is known after a restart.
fn recorded(error: crate::store::StoreError) -> Refusal {
    Refusal::from(error).money_may_have_moved(true)
}

/// Streams the states of a payment, the present one first, until the final one.
fn states(parts: Arc<RpcParts>, watch: PaymentWatch) -> Answers<v1::Payment> {
    let start = (parts, watch, true);
    Box::pin(stream::try_unfold(start, |(parts, mut watch, first)| async move {
        let step = async {
            match first {
                true => watch.current().await.map(Some),
                false => watch.next().await,
            }
        };
        let record = tokio::select! {
            biased;
            record = step => record.map_err(recorded)?,
            () = parts.tasks.stopped() => {
                return Err(stopping().money_may_have_moved(true).into());
            }
        };
        Ok(record.map(|record| (payment(&record), (parts, watch, false))))
    }))
}

fn unknown_payment(id: PaymentId) -> Refusal {
    let message = format_args!("no payment {id}");
    Refusal::new(Reason::PaymentUnknown, message).with("payment_id", id)
}

async fn look_up_invoice(parts: &RpcParts, hash: PaymentHash) -> Result<v1::Invoice, Refusal> {
    let view = parts.payments.look_up_invoice(hash).await?.ok_or_else(|| {
        let message = format_args!("no invoice with hash {hash}");
        Refusal::new(Reason::InvoiceUnknown, message).with("payment_hash", hash)
    })?;
    Ok(invoice(&view))
}

async fn list_payments(
    parts: &RpcParts,
    filter: &PaymentFilter,
    from: Option<Vec<u8>>,
    size: usize,
) -> Result<(Vec<v1::Payment>, Option<Vec<u8>>), Refusal> {
    let page = parts.payments.list(filter, from.as_deref(), size).await?;
    Ok((page.payments.iter().map(payment).collect(), page.next))
}

async fn list_invoices(
    parts: &RpcParts,
    filter: &InvoiceFilter,
    from: Option<Vec<u8>>,
    size: usize,
) -> Result<(Vec<v1::Invoice>, Option<Vec<u8>>), Refusal> {
    let (views, next) = parts.payments.list_invoice_views(filter, from.as_deref(), size).await?;
    Ok((views.iter().map(invoice).collect(), next))
}
