//! The node as it is looked at: spans begin, what measures is armed.

use std::sync::Arc;

use crate::config::Config;
use crate::environment::Environment;
use crate::lightning::Lightning;
use crate::observe::{Observer, Parts};
use crate::rpc::Door;
use crate::runtime::Tasks;
use crate::runtime::metrics::Exposed;
use crate::runtime::spans::{Spans, Teller};

/// Where spans go, as the configuration says.
pub(super) fn spans(
    config: &Config,
    lightning: &Lightning,
    environment: &Environment,
    tasks: &Tasks,
) -> Spans {
    let Some(endpoint) = config.traces.collector() else { return Spans::default() };
    let teller = Teller {
        service: config.traces.service_name.clone(),
        node_id: lightning.node_id().to_string(),
        alias: config.alias.clone(),
        sample_ppm: config.traces.sample_ppm,
    };
    Spans::start(endpoint, &teller, Arc::clone(&environment.clock), tasks)
}

/// Begins to look at the node, and at the calls that come by `door`.
pub(super) fn start(parts: Parts, door: &Door, tasks: &Tasks) -> Arc<Observer> {
    let (node, spans) = (parts.lightning.node_id(), parts.spans.clone());
    let entropy = Arc::clone(&parts.entropy);
    let observer = Observer::start(parts, tasks);
    if observer.is_armed() {
        door.calls().arm(node, spans, entropy);
    }
    observer.add(Arc::clone(door.calls()) as Arc<dyn Exposed>);
    observer
}
