//! LND: its program as it comes from the Go module proxy, driven over REST.
//!
//! Certificates and macaroons are switched off: everything is on loopback and worth nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use serde_json::{Value, json};

use crate::bitcoind::{PASSWORD, USER};
use crate::http::Http;
use crate::party::{Books, Chan, Invoice, Kind, Opening, Outcome, Party, Secret, Target, Wrong};
use crate::process::{Process, directory, free_address};
use crate::wait::{Failure, holds};

/// The record that carries a keysend's preimage.
const KEYSEND_RECORD: &str = "5482373484";
/// More than any scenario pays.
const FEE_LIMIT_MSAT: &str = "100000";
/// A keysend's recipient needs no more; LND's default of 10 minutes would stall a scenario.
const PAY_SECONDS: u32 = 60;

/// An LND node.
pub struct Lnd {
    name: String,
    exe: PathBuf,
    dir: PathBuf,
    listen: String,
    rpc: String,
    bitcoind: String,
    process: Process,
    http: Http,
}

impl Lnd {
    /// Makes a directory for a node below `root`.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn create(exe: &Path, root: &Path, name: &str, bitcoind: &str) -> Result<Self, Failure> {
        Ok(Self {
            name: name.to_owned(),
            exe: exe.to_owned(),
            dir: directory(root, name)?,
            listen: free_address()?.to_string(),
            rpc: free_address()?.to_string(),
            bitcoind: bitcoind.to_owned(),
            process: Process::new(root.join(format!("{name}.log"))),
            http: Http::new(free_address()?, None),
        })
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.answer(self.http.call(Method::GET, path, None).await)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.answer(self.http.call(Method::POST, path, Some(&body)).await)
    }

    fn answer(&self, answer: Result<Value, Failure>) -> Result<Value, Failure> {
        let value = answer.map_err(|error| format!("{}: {error}", self.name))?;
        // An error has a code beside its message; invoices and payments have neither.
        if value["code"].is_u64() && value["message"].is_string() {
            return Err(format!("{}: {}", self.name, value["message"]).into());
        }
        if let Some(message) = value["error"]["message"].as_str() {
            return Err(format!("{}: {message}", self.name).into());
        }
        Ok(value)
    }

    /// Sends a payment and reads how it ended.
    async fn send(&self, mut request: Value) -> Result<Outcome, Failure> {
        request["timeout_seconds"] = json!(PAY_SECONDS);
        request["fee_limit_msat"] = json!(FEE_LIMIT_MSAT);
        request["no_inflight_updates"] = json!(true);
        let answer = match self.post("/v2/router/send", request).await {
            Ok(answer) => answer,
            // What LND refuses to begin is an error of the call.
            Err(refusal) => return refused(refusal),
        };
        let last = answer.as_array().and_then(|all| all.last()).unwrap_or(&answer);
        let payment = &last["result"];
        match payment["status"].as_str() {
            Some("SUCCEEDED") => {
                let parts = list(payment, "htlcs").iter();
                let parts = parts.filter(|htlc| htlc["status"] == "SUCCEEDED").count();
                Ok(Outcome::Paid {
                    preimage: text(payment, "payment_preimage")?,
                    fee_msat: number(payment, "fee_msat")?,
                    parts: Some(parts),
                })
            }
            Some("FAILED") => {
                let reason = text(payment, "failure_reason")?;
                let last = list(payment, "htlcs").last().cloned().unwrap_or_default();
                let code = last["failure"]["code"].as_str().unwrap_or("no HTLC was sent");
                Ok(Outcome::Failed(format!("{reason}: {code}")))
            }
            _ => Err(format!("{}: an odd end of a payment: {last}", self.name).into()),
        }
    }

    async fn invoice_state(&self, hash: &str) -> Result<Value, Failure> {
        self.get(&format!("/v1/invoice/{hash}")).await
    }
}

/// Refusals at the door are outcomes; a node that does not answer is a failure.
fn refused(refusal: Failure) -> Result<Outcome, Failure> {
    let words = refusal.to_string();
    let known = ["invoice expired", "already paid", "self-payments not allowed"];
    if known.iter().any(|known| words.contains(known)) {
        return Ok(Outcome::Failed(words));
    }
    Err(refusal)
}

fn base64(hex_text: &str) -> Result<String, Failure> {
    Ok(BASE64_STANDARD.encode(hex::decode(hex_text)?))
}

fn text(value: &Value, key: &str) -> Result<String, Failure> {
    let text = value[key].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("LND's answer has no {key}: {value}").into())
}

/// LND writes 64-bit numbers as text.
fn number(value: &Value, key: &str) -> Result<u64, Failure> {
    let number = match &value[key] {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_u64(),
    };
    number.ok_or_else(|| format!("LND's answer has no number {key}: {value}").into())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn outpoint(value: &Value) -> Option<(String, u32)> {
    let (txid, index) = value["channel_point"].as_str()?.split_once(':')?;
    Some((txid.to_owned(), index.parse().ok()?))
}

fn invoice(made: &Value, hash: String) -> Result<Invoice, Failure> {
    Ok(Invoice { bolt11: text(made, "payment_request")?, hash })
}

#[async_trait]
impl Party for Lnd {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Lnd
    }

    fn address(&self) -> String {
        self.listen.clone()
    }

    async fn spawn(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.exe);
        command
            .arg(format!("--lnddir={}", self.dir.display()))
            .arg(format!("--alias={}", self.name))
            .arg(format!("--listen={}", self.listen))
            .arg(format!("--rpclisten={}", self.rpc))
            .arg(format!("--restlisten={}", self.http.server()))
            .args(["--no-rest-tls", "--no-macaroons", "--noseedbackup", "--nobootstrap"])
            .args(["--bitcoin.regtest", "--bitcoin.node=bitcoind"])
            .arg(format!("--bitcoind.rpchost={}", self.bitcoind))
            .arg(format!("--bitcoind.rpcuser={USER}"))
            .arg(format!("--bitcoind.rpcpass={PASSWORD}"))
            .args(["--bitcoind.rpcpolling", "--bitcoind.blockpollinginterval=200ms"])
            .args(["--bitcoind.txpollinginterval=500ms"])
            .args(["--accept-keysend", "--maxpendingchannels=10", "--trickledelay=100"])
            // Below what the miner takes where that is asked for: a child has to pay.
            .args(["--max-commit-fee-rate-anchors=2"])
            // What we wait for after closing alone; the default grows with the channel to weeks.
            .args(["--bitcoin.defaultremotedelay=144", "--debuglevel=info"]);
        self.process.start(command)
    }

    async fn answers(&self) -> Result<bool, Failure> {
        if self.process.has_ended() {
            return Err(format!("{} ended:\n{}", self.name, self.tail(20)).into());
        }
        let Ok(state) = self.get("/v1/state").await else { return Ok(false) };
        Ok(state["state"] == "SERVER_ACTIVE")
    }

    async fn kill(&self) -> Result<(), Failure> {
        self.process.kill()
    }

    async fn stop(&self) {
        if self.post("/v1/stop", json!({})).await.is_ok() {
            self.process.ended();
        }
    }

    async fn id(&self) -> Result<String, Failure> {
        text(&self.get("/v1/getinfo").await?, "identity_pubkey")
    }

    async fn height(&self) -> Result<u32, Failure> {
        let info = self.get("/v1/getinfo").await?;
        Ok(u32::try_from(number(&info, "block_height")?)?)
    }

    async fn new_address(&self) -> Result<String, Failure> {
        text(&self.get("/v1/newaddress?type=WITNESS_PUBKEY_HASH").await?, "address")
    }

    async fn coins_sat(&self) -> Result<u64, Failure> {
        number(&self.get("/v1/balance/blockchain").await?, "total_balance")
    }

    async fn confirmed_sat(&self) -> Result<u64, Failure> {
        number(&self.get("/v1/balance/blockchain").await?, "confirmed_balance")
    }

    async fn connect(&self, id: &str, address: &str) -> Result<(), Failure> {
        let body = json!({ "addr": { "pubkey": id, "host": address }, "timeout": "20" });
        match self.post("/v1/peers", body).await {
            Err(error) if !error.to_string().contains("already connected") => Err(error),
            _ => Ok(()),
        }
    }

    async fn disconnect(&self, id: &str) -> Result<(), Failure> {
        let path = format!("/v1/peers/{id}");
        self.answer(self.http.call(Method::DELETE, &path, None).await).map(drop)
    }

    async fn is_connected(&self, id: &str) -> Result<bool, Failure> {
        let peers = self.get("/v1/peers").await?;
        Ok(list(&peers, "peers").iter().any(|peer| peer["pub_key"] == id))
    }

    async fn open(&self, id: &str, address: &str, opening: Opening) -> Result<(), Failure> {
        self.connect(id, address).await?;
        let body = json!({
            "node_pubkey_string": id,
            "local_funding_amount": opening.capacity_sat.to_string(),
            "push_sat": opening.push_sat.to_string(),
            "private": !opening.public,
        });
        self.post("/v1/channels", body).await.map(drop)
    }

    async fn channels(&self) -> Result<Vec<Chan>, Failure> {
        let open = self.get("/v1/channels").await?;
        let pending = self.get("/v1/channels/pending").await?;
        let mut channels = Vec::new();
        for channel in list(&open, "channels") {
            let limits = &channel["local_constraints"];
            let local_msat = number(channel, "local_balance")? * 1_000;
            let reserve_msat = number(limits, "chan_reserve_sat")? * 1_000;
            let most = number(limits, "max_pending_amt_msat")?;
            channels.push(Chan {
                sendable_msat: local_msat.saturating_sub(reserve_msat).min(most),
                id: text(channel, "channel_point")?,
                peer: text(channel, "remote_pubkey")?,
                funding: outpoint(channel),
                active: channel["active"] == true,
                local_msat,
            });
        }
        for channel in list(&pending, "pending_open_channels") {
            let channel = &channel["channel"];
            channels.push(Chan {
                id: text(channel, "channel_point")?,
                peer: text(channel, "remote_node_pub")?,
                funding: outpoint(channel),
                active: false,
                sendable_msat: 0,
                local_msat: number(channel, "local_balance")? * 1_000,
            });
        }
        Ok(channels)
    }

    async fn closings(&self) -> Result<usize, Failure> {
        let pending = self.get("/v1/channels/pending").await?;
        let kinds = ["waiting_close_channels", "pending_force_closing_channels"];
        Ok(kinds.iter().map(|kind| list(&pending, kind).len()).sum())
    }

    async fn close(&self, channel: &Chan, force: bool) -> Result<(), Failure> {
        let (txid, index) = channel.funding.as_ref().ok_or("a channel without funding")?;
        let path = format!("/v1/channels/{txid}/{index}?force={force}");
        self.answer(self.http.first(Method::DELETE, &path).await).map(drop)
    }

    async fn invoice(&self, amount_msat: u64, expiry_seconds: u32) -> Result<Invoice, Failure> {
        let body = json!({
            "value_msat": amount_msat.to_string(),
            "expiry": expiry_seconds.to_string(),
        });
        let made = self.post("/v1/invoices", body).await?;
        let hash = hex::encode(BASE64_STANDARD.decode(text(&made, "r_hash")?)?);
        invoice(&made, hash)
    }

    async fn hold_invoice(&self, hash: &str, amount_msat: u64) -> Result<Invoice, Failure> {
        let body = json!({ "hash": base64(hash)?, "value_msat": amount_msat.to_string() });
        invoice(&self.post("/v2/invoices/hodl", body).await?, hash.to_owned())
    }

    async fn is_held(&self, hash: &str) -> Result<bool, Failure> {
        Ok(self.invoice_state(hash).await?["state"] == "ACCEPTED")
    }

    async fn settle(&self, secret: &Secret) -> Result<(), Failure> {
        let body = json!({ "preimage": base64(&secret.preimage)? });
        self.post("/v2/invoices/settle", body).await.map(drop)
    }

    async fn cancel(&self, hash: &str) -> Result<(), Failure> {
        let body = json!({ "payment_hash": base64(hash)? });
        self.post("/v2/invoices/cancel", body).await.map(drop)
    }

    async fn received_msat(&self, hash: &str) -> Result<Option<u64>, Failure> {
        let invoice = self.invoice_state(hash).await?;
        if invoice["state"] != "SETTLED" {
            return Ok(None);
        }
        number(&invoice, "amt_paid_msat").map(Some)
    }

    async fn pay(&self, target: Target) -> Result<Outcome, Failure> {
        match target {
            Target::Invoice(bolt11) => {
                self.send(json!({ "payment_request": bolt11, "max_parts": 16 })).await
            }
            Target::Keysend(id, amount_msat) => {
                let secret = Secret::new();
                let request = json!({
                    "dest": base64(&id)?,
                    "amt_msat": amount_msat.to_string(),
                    "payment_hash": base64(&secret.hash)?,
                    "dest_custom_records": { KEYSEND_RECORD: base64(&secret.preimage)? },
                });
                self.send(request).await
            }
            Target::Offer(_) => Err("LND has no BOLT 12".into()),
        }
    }

    async fn pay_wrongly(&self, wrong: &Wrong) -> Result<Option<Outcome>, Failure> {
        let mut request = json!({
            "dest": base64(&wrong.id)?,
            "amt_msat": wrong.amount_msat.to_string(),
            "payment_hash": base64(&wrong.hash)?,
            "final_cltv_delta": 100,
        });
        // TLV onion and payment address: what an invoice with a payment secret asks for. Without
        // them the recipient would answer that the onion is odd, and LND avoid it for an hour.
        request["dest_features"] = json!([9, 15]);
        request["payment_addr"] = match &wrong.bolt11 {
            Some(bolt11) => {
                self.get(&format!("/v1/payreq/{bolt11}")).await?["payment_addr"].clone()
            }
            None => json!(base64(&Secret::new().hash)?),
        };
        self.send(request).await.map(Some)
    }

    async fn offer(&self, _amount_msat: u64) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    async fn reaches(&self, id: &str, amount_msat: u64) -> Result<bool, Failure> {
        let amount_sat = amount_msat.div_ceil(1_000);
        Ok(self.get(&format!("/v1/graph/routes/{id}/{amount_sat}")).await.is_ok())
    }

    async fn books(&self) -> Result<Books, Failure> {
        let mut books = Books::default();
        let path = "/v1/payments?include_incomplete=true&max_payments=100000";
        for payment in list(&self.get(path).await?, "payments") {
            match payment["status"].as_str() {
                Some("SUCCEEDED") => {
                    books.sent += 1;
                    books.sent_msat += number(payment, "value_msat")?;
                }
                Some("FAILED") => {}
                _ => books.in_flight += 1,
            }
        }
        let mut offset = 0;
        loop {
            let path = format!("/v1/invoices?num_max_invoices=10000&index_offset={offset}");
            let page = self.get(&path).await?;
            for invoice in list(&page, "invoices") {
                if invoice["state"] == "SETTLED" {
                    books.received += 1;
                    books.received_msat += number(invoice, "amt_paid_msat")?;
                }
            }
            if list(&page, "invoices").is_empty() {
                return Ok(books);
            }
            offset = number(&page, "last_index_offset")?;
            holds(offset > 0, || "LND's invoices have no offset".to_owned())?;
        }
    }

    async fn splice_in(&self, _channel: &Chan, _amount_sat: u64) -> Result<Option<()>, Failure> {
        Ok(None)
    }

    fn tail(&self, lines: usize) -> String {
        self.process.tail(lines)
    }
}
