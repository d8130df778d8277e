//! ldk-node: a child program that embeds it (`ldk/`), driven by lines of JSON.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bitcoind::{PASSWORD, USER};
use crate::party::{Books, Chan, Invoice, Kind, Opening, Outcome, Party, Secret, Target, Wrong};
use crate::process::{Process, directory, free_address};
use crate::wait::Failure;

/// Longer than the child waits for a payment.
const PATIENCE: Duration = Duration::from_secs(600);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// An ldk-node node.
pub struct Ldk {
    name: String,
    exe: PathBuf,
    dir: PathBuf,
    listen: String,
    rpc: std::net::SocketAddr,
    process: Process,
    input: Mutex<Option<ChildStdin>>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Ldk {
    /// Makes a directory for a node below `root`.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn create(
        exe: &Path,
        root: &Path,
        name: &str,
        rpc: std::net::SocketAddr,
    ) -> Result<Self, Failure> {
        Ok(Self {
            name: name.to_owned(),
            exe: exe.to_owned(),
            dir: directory(root, name)?,
            listen: free_address()?.to_string(),
            rpc,
            process: Process::new(root.join(format!("{name}.log"))),
            input: Mutex::new(None),
            waiting: Waiting::default(),
            next: AtomicU64::new(1),
        })
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let failed =
            |error: &str| -> Failure { format!("{}, {method}: {error}", self.name).into() };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        locked(&self.waiting).insert(id, sender);
        let line = format!("{}\n", json!({ "id": id, "method": method, "params": params }));
        {
            let mut input = locked(&self.input);
            let input = input.as_mut().ok_or_else(|| failed("it does not run"))?;
            input.write_all(line.as_bytes()).map_err(|e| failed(&e.to_string()))?;
        }
        let answer = timeout(PATIENCE, receiver).await.map_err(|_| failed("no answer in time"))?;
        let mut answer = answer.map_err(|_| failed("it has ended"))?;
        match answer["error"].as_str() {
            Some(error) => Err(failed(error)),
            None => Ok(answer["result"].take()),
        }
    }

    async fn payment(&self, params: Value) -> Result<Outcome, Failure> {
        let answer = self.call("pay", params).await?;
        if let Some(reason) = answer["failed"].as_str() {
            return Ok(Outcome::Failed(reason.to_owned()));
        }
        Ok(Outcome::Paid {
            preimage: answer["preimage"].as_str().unwrap_or_default().to_owned(),
            fee_msat: answer["fee_msat"].as_u64().unwrap_or_default(),
            parts: None,
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands answers to those who wait, until the child ends; then nobody waits any more.
fn read_answers(output: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            eprintln!("interop: not an answer of ldk-node: {line}");
            continue;
        };
        let waiter = answer["id"].as_u64().and_then(|id| locked(waiting).remove(&id));
        if let Some(waiter) = waiter {
            // Who asked may have given up.
            let _ = waiter.send(answer);
        }
    }
    locked(waiting).clear();
}

fn invoice(made: &Value) -> Result<Invoice, Failure> {
    let text = |key: &str| made[key].as_str().map(str::to_owned);
    let (bolt11, hash) = text("bolt11").zip(text("hash")).ok_or("an odd invoice")?;
    Ok(Invoice { bolt11, hash })
}

fn number(value: &Value, key: &str) -> Result<u64, Failure> {
    value[key].as_u64().ok_or_else(|| format!("no number {key} in {value}").into())
}

#[async_trait]
impl Party for Ldk {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Ldk
    }

    fn address(&self) -> String {
        self.listen.clone()
    }

    async fn spawn(&self) -> Result<(), Failure> {
        let settings = json!({
            "dir": self.dir,
            "alias": self.name,
            "listen": self.listen,
            "rpc_host": self.rpc.ip().to_string(),
            "rpc_port": self.rpc.port(),
            "rpc_user": USER,
            "rpc_password": PASSWORD,
        });
        let mut command = Command::new(&self.exe);
        command.arg(settings.to_string());
        let (input, output) = self.process.start_piped(command)?;
        *locked(&self.input) = Some(input);
        let waiting = Arc::clone(&self.waiting);
        std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || read_answers(output, &waiting))?;
        Ok(())
    }

    async fn answers(&self) -> Result<bool, Failure> {
        if self.process.has_ended() {
            return Err(format!("{} ended:\n{}", self.name, self.tail(20)).into());
        }
        Ok(self.call("info", Value::Null).await.is_ok())
    }

    async fn kill(&self) -> Result<(), Failure> {
        *locked(&self.input) = None;
        self.process.kill()
    }

    async fn stop(&self) {
        // It ends with its input.
        *locked(&self.input) = None;
        self.process.ended();
    }

    async fn id(&self) -> Result<String, Failure> {
        let info = self.call("info", Value::Null).await?;
        Ok(info["id"].as_str().ok_or("no id")?.to_owned())
    }

    async fn height(&self) -> Result<u32, Failure> {
        let info = self.call("info", Value::Null).await?;
        Ok(u32::try_from(number(&info, "height")?)?)
    }

    async fn new_address(&self) -> Result<String, Failure> {
        let address = self.call("address", Value::Null).await?;
        Ok(address.as_str().ok_or("no address")?.to_owned())
    }

    async fn coins_sat(&self) -> Result<u64, Failure> {
        number(&self.call("balances", Value::Null).await?, "total_sat")
    }

    async fn confirmed_sat(&self) -> Result<u64, Failure> {
        let balances = self.call("balances", Value::Null).await?;
        Ok(number(&balances, "spendable_sat")? + number(&balances, "reserve_sat")?)
    }

    async fn connect(&self, id: &str, address: &str) -> Result<(), Failure> {
        self.call("connect", json!({ "node": id, "address": address })).await.map(drop)
    }

    async fn disconnect(&self, id: &str) -> Result<(), Failure> {
        self.call("disconnect", json!({ "node": id })).await.map(drop)
    }

    async fn is_connected(&self, id: &str) -> Result<bool, Failure> {
        let peers = self.call("peers", Value::Null).await?;
        Ok(peers.as_array().is_some_and(|peers| peers.iter().any(|peer| peer == id)))
    }

    async fn open(&self, id: &str, address: &str, opening: Opening) -> Result<(), Failure> {
        let params = json!({
            "node": id,
            "address": address,
            "capacity_sat": opening.capacity_sat,
            "push_sat": opening.push_sat,
            "public": opening.public,
        });
        self.call("open", params).await.map(drop)
    }

    async fn channels(&self) -> Result<Vec<Chan>, Failure> {
        let channels = self.call("channels", Value::Null).await?;
        let channels = channels.as_array().ok_or("no list of channels")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        channels
            .iter()
            .map(|channel| {
                Ok(Chan {
                    id: text(&channel["id"]),
                    peer: text(&channel["peer"]),
                    funding: serde_json::from_value(channel["funding"].clone())?,
                    active: channel["active"] == true,
                    local_msat: number(channel, "local_msat")?,
                    sendable_msat: number(channel, "sendable_msat")?,
                })
            })
            .collect()
    }

    async fn closings(&self) -> Result<usize, Failure> {
        let balances = self.call("balances", Value::Null).await?;
        Ok(usize::try_from(number(&balances, "closings")? + number(&balances, "sweeps")?)?)
    }

    async fn close(&self, channel: &Chan, force: bool) -> Result<(), Failure> {
        let params = json!({ "channel": channel.id, "node": channel.peer, "force": force });
        self.call("close", params).await.map(drop)
    }

    async fn invoice(&self, amount_msat: u64, expiry_seconds: u32) -> Result<Invoice, Failure> {
        let params = json!({ "amount_msat": amount_msat, "expiry_seconds": expiry_seconds });
        invoice(&self.call("invoice", params).await?)
    }

    async fn hold_invoice(&self, hash: &str, amount_msat: u64) -> Result<Invoice, Failure> {
        let params = json!({ "amount_msat": amount_msat, "expiry_seconds": 3_600, "hash": hash });
        invoice(&self.call("invoice", params).await?)
    }

    async fn is_held(&self, hash: &str) -> Result<bool, Failure> {
        Ok(self.call("held_msat", json!({ "hash": hash })).await?.is_u64())
    }

    async fn settle(&self, secret: &Secret) -> Result<(), Failure> {
        let params = json!({ "hash": secret.hash, "preimage": secret.preimage });
        self.call("settle", params).await.map(drop)
    }

    async fn cancel(&self, hash: &str) -> Result<(), Failure> {
        self.call("cancel", json!({ "hash": hash })).await.map(drop)
    }

    async fn received_msat(&self, hash: &str) -> Result<Option<u64>, Failure> {
        Ok(self.call("payments", Value::Null).await?["received"][hash].as_u64())
    }

    async fn pay(&self, target: Target) -> Result<Outcome, Failure> {
        self.payment(match target {
            Target::Invoice(bolt11) => json!({ "invoice": bolt11 }),
            Target::Offer(offer) => json!({ "offer": offer }),
            Target::Keysend(id, amount_msat) => json!({ "node": id, "amount_msat": amount_msat }),
        })
        .await
    }

    async fn pay_wrongly(&self, wrong: &Wrong) -> Result<Option<Outcome>, Failure> {
        let Some(bolt11) = &wrong.bolt11 else { return Ok(None) };
        let params = json!({ "invoice": bolt11, "amount_msat": wrong.amount_msat });
        self.payment(params).await.map(Some)
    }

    async fn offer(&self, amount_msat: u64) -> Result<Option<String>, Failure> {
        let offer = self.call("offer", json!({ "amount_msat": amount_msat })).await?;
        Ok(offer.as_str().map(str::to_owned))
    }

    async fn reaches(&self, id: &str, _amount_msat: u64) -> Result<bool, Failure> {
        Ok(self.call("reaches", json!({ "node": id })).await? == true)
    }

    async fn books(&self) -> Result<Books, Failure> {
        let payments = self.call("payments", Value::Null).await?;
        let sum = |name: &str| -> Result<(u64, u64), Failure> {
            let sum = &payments["sums"][name];
            if sum.is_null() { Ok((0, 0)) } else { Ok(serde_json::from_value(sum.clone())?) }
        };
        let (sent, sent_msat) = sum("sent")?;
        let (received, received_msat) = sum("received")?;
        let in_flight = sum("in_flight")?.0;
        Ok(Books { sent, sent_msat, in_flight, received, received_msat })
    }

    async fn splice_in(&self, channel: &Chan, amount_sat: u64) -> Result<Option<()>, Failure> {
        let params =
            json!({ "channel": channel.id, "node": channel.peer, "amount_sat": amount_sat });
        self.call("splice_in", params).await.map(|_| Some(()))
    }

    fn tail(&self, lines: usize) -> String {
        let own = std::fs::read_to_string(self.dir.join("ldk_node.log")).unwrap_or_default();
        let own: Vec<&str> = own.lines().collect();
        let own = own[own.len().saturating_sub(lines)..].join("\n");
        format!("{}\n{own}", self.process.tail(lines))
    }
}
