//! The page of figures, family by family. Names end in their unit; README has a table of them.
//!
//! One file for each part of the node. What a service counts is read from it; everything else is
//! looked up now.

mod chain;
mod channels;
mod guards;
mod node;
mod payments;
mod store;
mod telling;

use super::Observer;
use crate::runtime::metrics::Page;

/// Writes every family.
pub(super) async fn write(observer: &Observer, page: &mut Page) {
    node::write(observer, page);
    store::write(observer, page);
    chain::write(observer, page).await;
    channels::write(observer, page).await;
    payments::write(observer, page);
    guards::batches(observer, page).await;
    guards::towers(observer, page);
    telling::write(observer, page);
}

/// A yes or no as a figure.
fn flag(is: bool) -> u8 {
    u8::from(is)
}
