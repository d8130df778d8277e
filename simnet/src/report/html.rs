//! A run as one HTML page: figures, then plots. It loads nothing from elsewhere.

use std::fmt::Write as _;

use super::plot::{Line, Plot, escape, number};
use super::recorder::{PaymentRecord, Recorder, Sample};
use super::summary::Summary;
use crate::stats::{Estimate, percentile};
use crate::workload::micros;

/// Stretches of time in plots of payments.
const STRETCHES: usize = 60;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;\
                     padding:0 1em;color:#1f2328}table{border-collapse:collapse;margin:1em 0}\
                     td,th{padding:.2em .9em .2em 0;text-align:left;vertical-align:top}\
                     td+td{text-align:right;font-variant-numeric:tabular-nums}\
                     svg{width:100%;height:auto;margin:.6em 0}\
                     .partial{background:#fff8c5;padding:.6em 1em;border:1px solid #d4a72c}";

/// Writes the page.
pub fn page(summary: &Summary, recorder: &Recorder) -> String {
    let identity = &summary.identity;
    let title = escape(&identity.scenario);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p>{engine} engine, seed {seed}, simnet {version}, commit {commit}.</p>\n",
        engine = identity.engine.name(),
        seed = identity.seed,
        version = escape(&identity.version),
        commit = escape(&identity.commit),
    );
    if summary.partial {
        html.push_str(
            "<p class=\"partial\">Partial: the run was broken off. Figures are of what there \
             is; payments under way count as unfinished.</p>\n",
        );
    }
    if !identity.settings.is_empty() {
        let set = |(key, value): (&String, &String)| format!("{key} = {value}");
        let settings: Vec<String> = identity.settings.iter().map(set).collect();
        let _infallible = writeln!(html, "<p>With {}.</p>", escape(&settings.join(", ")));
    }
    figures(&mut html, summary);
    html.push_str("<h2>Over time</h2>\n");
    payment_plots(&mut html, summary, recorder);
    sample_plots(&mut html, &recorder.samples);
    html.push_str("<h2>By amount</h2>\n");
    html.push_str(&by_amount(summary));
    html.push_str("\n</body></html>\n");
    html
}

fn figures(html: &mut String, summary: &Summary) {
    html.push_str("<table>\n");
    let mut row = |name: &str, value: String| {
        let _infallible = writeln!(html, "<tr><td>{name}</td><td>{value}</td></tr>");
    };
    row("nodes, channels", format!("{}, {}", summary.nodes, summary.channels));
    row("virtual time", format!("{} s", number(summary.duration_s)));
    if summary.warm_up_s > 0.0 {
        row("left out at the start", format!("{} s", number(summary.warm_up_s)));
    }
    row("payments", summary.payments.to_string());
    for (outcome, count) in &summary.outcomes {
        row(&format!("… {}", outcome.replace('_', " ")), count.to_string());
    }
    let percent = |estimate: Estimate| Estimate {
        mean: estimate.mean * 100.0,
        half_width: estimate.half_width.map(|half| half * 100.0),
        ..estimate
    };
    let mut estimate = |name: &str, value: Option<Estimate>, unit: &str| {
        row(name, value.map_or("–".into(), |value| format!("{}{unit}", interval(&value))));
    };
    estimate("success", summary.success_rate.map(percent), " %");
    estimate("throughput", summary.throughput_per_s, " /s");
    estimate("latency, half", summary.latency_p50_ms, " ms");
    estimate("latency, 95 %", summary.latency_p95_ms, " ms");
    estimate("latency, 99 %", summary.latency_p99_ms, " ms");
    estimate("fee", summary.fee_ppm, " ppm");
    estimate("HTLCs for a payment", summary.attempts, "");
    estimate("parts", summary.parts, "");
    estimate("hops", summary.hops, "");
    estimate("imbalance of channels", summary.imbalance, "");
    row("on chain", format!("{} vB, {} sat", summary.chain_vb, summary.chain_fee_sat));
    if summary.totals.batches_opened > 0 {
        let totals = &summary.totals;
        row(
            "most capital in batches",
            format!("{} sat", number(summary.capital_locked_max_sat as f64)),
        );
        let batches =
            format!("{} opened, {} settled", totals.batches_opened, totals.batches_settled);
        row("batches", batches);
        row("rollovers", totals.rolled_over.to_string());
        let exits = format!(
            "{} done, {} not worth it, {} late",
            totals.exits_done, totals.exits_not_worth, totals.exits_late
        );
        row("exits", exits);
        row("lost by users", format!("{} sat", totals.lost_sat));
        if totals.cheats > 0 {
            let cheats = format!("{} tried, {} punished", totals.cheats, totals.cheats_punished);
            row("old states", cheats);
        }
    }
    html.push_str("</table>\n<p>± is the 95 % confidence interval by batch means.</p>\n");
}

fn interval(estimate: &Estimate) -> String {
    match estimate.half_width {
        Some(half) => format!("{} ± {}", number(estimate.mean), number(half)),
        None => number(estimate.mean),
    }
}

fn payment_plots(html: &mut String, summary: &Summary, recorder: &Recorder) {
    let start_us = micros(summary.warm_up_s);
    let span_us = recorder.end_us.saturating_sub(start_us).max(1);
    let mut stretches: Vec<Vec<&PaymentRecord>> = vec![Vec::new(); STRETCHES];
    for payment in recorder.payments.iter().filter(|payment| payment.succeeded()) {
        let at_us = payment.at_us + payment.latency_us;
        if payment.at_us >= start_us {
            let place =
                u128::from(at_us - start_us) * STRETCHES as u128 / (u128::from(span_us) + 1);
            let place = usize::try_from(place).unwrap_or(0).min(STRETCHES - 1);
            stretches[place].push(payment);
        }
    }
    let seconds = span_us as f64 / 1e6 / STRETCHES as f64;
    let at_s = |place: usize| summary.warm_up_s + (place as f64 + 0.5) * seconds;
    let rates = stretches.iter().enumerate();
    let rates = rates.map(|(place, payments)| (at_s(place), payments.len() as f64 / seconds));
    let plot = |title, y| Plot { title, x: "time, s", y, log_x: false, y_at_least: 0.0 };
    let throughput = Line { name: "arrived".into(), points: rates.collect() };
    html.push_str(&plot("Throughput", "payments/s").draw(&[throughput]));
    let percentiles = [("50 %", 0.5), ("95 %", 0.95), ("99 %", 0.99)].map(|(name, share)| Line {
        name: name.into(),
        points: stretches
            .iter()
            .enumerate()
            .filter(|(_, payments)| !payments.is_empty())
            .map(|(place, payments)| {
                let mut latencies: Vec<f64> =
                    payments.iter().map(|payment| payment.latency_us as f64 / 1e3).collect();
                (at_s(place), percentile(&mut latencies, share))
            })
            .collect(),
    });
    html.push_str(&plot("Latency", "ms").draw(&percentiles));
}

fn sample_plots(html: &mut String, samples: &[Sample]) {
    let line = |name: &str, value: &dyn Fn(&Sample) -> f64| Line {
        name: name.into(),
        points: samples.iter().map(|sample| (sample.at_us as f64 / 1e6, value(sample))).collect(),
    };
    let plot = |title, y| Plot { title, x: "time, s", y, log_x: false, y_at_least: 0.0 };
    let imbalance = Plot { y_at_least: 1.0, ..plot("Channel imbalance", "0 even, 1 one-sided") };
    html.push_str(&imbalance.draw(&[line("mean", &|sample| sample.imbalance)]));
    let locked = [
        line("in batches", &|sample| sample.capital_locked_sat as f64),
        line("in HTLCs", &|sample| sample.htlc_msat as f64 / 1e3),
    ];
    html.push_str(&plot("Capital locked", "sat").draw(&locked));
    let chain = [line("all", &|sample| sample.chain_vb as f64)];
    html.push_str(&plot("On-chain bytes", "vB since the start").draw(&chain));
    let feerate = [line("feerate", &|sample| sample.feerate_msat_per_vb as f64 / 1e3)];
    html.push_str(&plot("Feerate", "sat/vB").draw(&feerate));
    let world = [
        line("nodes", &|sample| sample.nodes_online as f64),
        line("HTLCs", &|sample| sample.htlcs as f64),
        line("exits", &|sample| sample.exits_waiting as f64),
    ];
    html.push_str(&plot("Nodes online, HTLCs, exits waiting", "count").draw(&world));
}

fn by_amount(summary: &Summary) -> String {
    let points = summary.by_amount.iter();
    let points = points.map(|class| (class.from_msat as f64, class.success_rate * 100.0));
    let plot = Plot {
        title: "Success by amount",
        x: "amount from, msat",
        y: "% arrived",
        log_x: true,
        y_at_least: 100.0,
    };
    plot.draw(&[Line { name: "arrived".into(), points: points.collect() }])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::{Identity, Outcome};
    use crate::scenario::{Engine, MeasureSpec};

    fn recorder(partial: bool) -> Recorder {
        let mut recorder = Recorder { end_us: 9_000_000, partial, ..Recorder::default() };
        for place in 0..100 {
            recorder.payment(PaymentRecord {
                at_us: place * 80_000,
                from: 0,
                to: 1,
                amount_msat: 10 + place * 1_000,
                outcome: if place % 3 == 0 { Outcome::NoRoute } else { Outcome::Succeeded },
                latency_us: 40_000,
                fee_msat: 3,
                attempts: 1,
                parts: 1,
                hops: 2,
            });
            recorder.sample(Sample { at_us: place * 90_000, imbalance: 0.4, ..Sample::default() });
        }
        recorder
    }

    fn html(partial: bool) -> String {
        let recorder = recorder(partial);
        let identity = Identity::new("a <test>", Engine::Model, 7, BTreeMap::new());
        let summary = Summary::new(identity, &recorder, &MeasureSpec::default());
        page(&summary, &recorder)
    }

    #[test]
    fn a_page_stands_alone() {
        let html = html(false);
        assert_eq!(html.matches("<svg").count(), 8);
        for word in ["<script", "<link", "src=", "url(", "@import"] {
            assert!(!html.contains(word), "{word}");
        }
        // The only address in it is the name of SVG itself.
        assert_eq!(
            html.matches("http").count(),
            html.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(html.contains("a &lt;test&gt;") && html.contains("seed 7"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn a_partial_run_says_so() {
        assert!(html(true).contains("Partial:"));
        assert!(!html(false).contains("Partial:"));
    }
}
