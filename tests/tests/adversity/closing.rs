//! A side that loses power after any message of a cooperative close.

use node::dev::Cluster;
use node::lightning::CloseKind;
use tests::e2e::{FormedBatch, HUB, conserved, crash, form, pays, records, until};

use crate::stage::{connected_at, fund, live, start};
use crate::wire::Wire;

/// A capacity of which many fit into the hub's coins.
const SMALL_SAT: u64 = 50_000;
const PAID_MSAT: u64 = 10_000_000;
/// Fewer pieces than any close takes: what is said both ways may go together.
const FEWEST_PIECES: u64 = 2;

pub async fn a_close_that_is_cut_off_after_any_message_is_one_for_both(net: &mut Cluster) {
    start(net, &[HUB, "ada"], |_| {}).await;
    fund(net, HUB, 4_000_000, 20).await;
    let wire = Wire::to(net.get(HUB).unwrap().address()).await;
    for loser in [HUB, "ada"] {
        let mut after = 1;
        loop {
            connected_at(net, "ada", &wire.address).await;
            let batch = form(net, HUB, &["ada"], SMALL_SAT).await;
            live(net, &batch).await;
            pays(net, HUB, "ada", PAID_MSAT).await;

            connected_by(net, &wire).await;
            wire.goes_dead_after(after);
            close(net, &batch).await;
            until("the end of the channel, or of the wire", async || {
                wire.is_dead() || is_closed(net)
            })
            .await;
            let was_cut = wire.is_dead();
            if was_cut {
                crash(net, loser).await;
            }
            wire.repair();
            connected_at(net, "ada", &wire.address).await;
            until("the end of the channel for both", async || {
                // A close that was forgotten with the power is asked for again.
                close(net, &batch).await;
                is_closed(net)
            })
            .await;
            closed_together(net, loser, after).await;
            if !was_cut {
                break;
            }
            after += 1;
        }
        println!("  {loser} lost power after each of {} messages", after - 1);
        assert!(after > FEWEST_PIECES, "{loser} was cut off {after} times only");
    }
    conserved(net).await;
}

/// Sees to it that what both say goes over the wire: a node also knows the hub's own address, and
/// dials that as well when a connection is lost.
async fn connected_by(net: &Cluster, wire: &Wire) {
    let (hub, ada) = (net.node(HUB).lightning.node_id(), net.node("ada"));
    until("a connection by the wire", async || {
        if wire.is_between() {
            return true;
        }
        ada.lightning.disconnect(hub);
        connected_at(net, "ada", &wire.address).await;
        wire.is_between()
    })
    .await;
}

/// Has ada close the channel, if she still has it.
async fn close(net: &Cluster, batch: &FormedBatch) {
    let _if_open =
        net.node("ada").channels.close(batch.members[0].at_user, false, None, None).await;
}

fn is_closed(net: &Cluster) -> bool {
    [HUB, "ada"].iter().all(|name| net.node(name).lightning.channels().is_empty())
}

async fn closed_together(net: &Cluster, loser: &str, after: u64) {
    let mempool = net.chain.source().mempool().await.unwrap();
    assert_eq!(mempool, vec![], "{loser} lost power after {after} messages");
    for name in [HUB, "ada"] {
        until("the record of the close", async || {
            records(net, name).await.iter().all(|record| record.close_kind.is_some())
        })
        .await;
        for record in records(net, name).await {
            assert_eq!(
                record.close_kind,
                Some(CloseKind::Cooperative),
                "{name}, when {loser} lost power after {after} messages: {record:?}"
            );
        }
    }
}
