//! A burst of payments from one node to another, and how long each took.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use node::dev::Cluster;
use node::lightning::InvoiceDescription;
use node::payments::{CreateInvoice, PayRequest, PayTarget, PaymentState};
use tokio::time::Instant;

use super::report::PaymentsReport;
use super::{Progress, failed};
use crate::error::CliError;

/// Amounts go from 1 sat up, so that no two neighbours are alike.
const AMOUNT_MSAT: u64 = 1_000;

/// Pays `count` invoices of `to` from `from`, at most `concurrency` at once.
pub async fn run(
    net: &Cluster,
    from: &str,
    to: &str,
    count: u64,
    concurrency: u32,
    progress: &Progress,
) -> Result<PaymentsReport, CliError> {
    let receiver = Arc::clone(&net.node(to).payments);
    let sender = Arc::clone(&net.node(from).payments);
    progress.say(&format!("{to} writes {count} invoices"));
    let invoices: Vec<String> = stream::iter(0..count)
        .map(|number| {
            let receiver = Arc::clone(&receiver);
            async move {
                let create = CreateInvoice {
                    amount_msat: Some(AMOUNT_MSAT + number % 500),
                    description: InvoiceDescription::Text(format!("payment {number}")),
                    expiry: Duration::from_secs(3_600),
                    min_final_cltv_expiry_delta: None,
                    hash: None,
                };
                receiver.create_invoice(create, None).await.map(|invoice| invoice.invoice)
            }
        })
        .buffer_unordered(concurrency.max(1) as usize)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(failed)?;

    progress.say(&format!("{from} pays {count} invoices, {concurrency} at once"));
    let started = Instant::now();
    let outcomes: Vec<Option<Duration>> = stream::iter(invoices)
        .map(|invoice| {
            let sender = Arc::clone(&sender);
            async move {
                let began = Instant::now();
                let request = PayRequest {
                    target: PayTarget::Request(invoice),
                    amount_msat: None,
                    max_fee_msat: None,
                    retry_for: None,
                    max_parts: None,
                    payer_note: None,
                };
                let outcome = match sender.pay(&request, None) {
                    Ok(mut payment) => payment.outcome().await.map(|record| record.state),
                    Err(error) => {
                        tracing::warn!(%error, "payment refused");
                        Ok(PaymentState::Failed)
                    }
                };
                matches!(outcome, Ok(PaymentState::Succeeded)).then(|| began.elapsed())
            }
        })
        .buffer_unordered(concurrency.max(1) as usize)
        .collect()
        .await;
    let elapsed = started.elapsed();
    let mut times: Vec<Duration> = outcomes.into_iter().flatten().collect();
    times.sort_unstable();
    let succeeded = times.len() as u64;
    Ok(PaymentsReport {
        sent: count,
        succeeded,
        failed: count - succeeded,
        p50_ms: percentile_ms(&times, 50),
        p99_ms: percentile_ms(&times, 99),
        per_second: rounded(succeeded as f64 / elapsed.as_secs_f64()),
    })
}

/// The time that `percent` of sorted `times` do not exceed (nearest rank), in ms.
fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(0.0, |time| rounded(time.as_secs_f64() * 1_000.0))
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(&times, 50).to_string(), "100");
        assert_eq!(percentile_ms(&times, 99).to_string(), "198");
        assert_eq!(percentile_ms(&[], 50).to_string(), "0");
    }
}
