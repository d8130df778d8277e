//! One swap of each kind: fixed keys, hash and times.

use bitcoin::{Amount, absolute, relative};
use channel_contracts::musig::TreeSecret;
use channel_contracts::script::Preimage;
use channel_contracts::swap::{RefundTime, SwapContract};

use super::batch::{bytes, secret};

pub const AMOUNT: Amount = Amount::from_sat(70_000);
pub const REFUND: u32 = 800_200;
pub const BLOCKS: u16 = 1_008;
pub const LEVELS: u32 = 4;

pub fn preimage() -> Preimage {
    Preimage(bytes("preimage", 0))
}

pub fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap()
}

pub fn claimer() -> TreeSecret {
    secret("claimer", 0)
}

pub fn refunder() -> TreeSecret {
    secret("refunder", 0)
}

pub fn contract(refund_time: RefundTime) -> SwapContract {
    SwapContract {
        hash: preimage().hash(),
        claimer: claimer().public_key(),
        refunder: refunder().public_key(),
        refund_time,
    }
}

pub fn contracts() -> [SwapContract; 2] {
    [
        contract(RefundTime::Height(height(REFUND))),
        contract(RefundTime::Blocks(relative::Height::from_height(BLOCKS))),
    ]
}
