//! Towers for people.

use comfy_table::Cell;
use proto::v1::{GuardingTower, TowerMode};

use super::table::{begin, finish};
use crate::amount::grouped;

/// The towers of a node.
pub fn list(towers: &[GuardingTower], outbox_bytes: u64) -> String {
    let mut table =
        begin(&["tower", "mode", "has", "waits", "refused", "paths", "until height", "state"]);
    for tower in towers {
        let mode = match tower.mode() {
            TowerMode::Trusted => "trusted",
            TowerMode::Blind | TowerMode::Unspecified => "blind",
        };
        let state = match (&tower.last_error, tower.backlog) {
            _ if tower.missed > 0 => format!("never heard of {}", grouped(tower.missed)),
            (Some(error), _) => error.clone(),
            (None, 0) => "has everything".to_owned(),
            (None, _) => "is catching up".to_owned(),
        };
        table.add_row(vec![
            Cell::new(format!("{}@{}", hex::encode(&tower.tower_id), tower.address)),
            Cell::new(mode),
            Cell::new(grouped(tower.delivered)),
            Cell::new(grouped(tower.backlog)),
            Cell::new(grouped(tower.refused)),
            Cell::new(grouped(tower.watched_paths.into())),
            Cell::new(grouped(tower.expires_height.into())),
            Cell::new(state),
        ]);
    }
    let mut text = finish(table, "no towers; `tributary tower add KEY@HOST:PORT` adds one");
    for tower in towers.iter().filter(|tower| tower.mode() == TowerMode::Trusted) {
        let client = hex::encode(&tower.client_id);
        text.push_str(&match tower.fee_budget_sat {
            0 => format!("\nthis node is client {client}: add it to tower.household there"),
            sat => format!("\nit spends {} sat on a path or breach of {client}", grouped(sat)),
        });
    }
    if outbox_bytes > 0 {
        text.push_str(&format!("\n{} bytes wait for the slowest of them", grouped(outbox_bytes)));
    }
    text
}
