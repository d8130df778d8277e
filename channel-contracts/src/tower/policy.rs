//! What a tower takes from a client, and what it spends for one.

use bitcoin::{FeeRate, absolute};

use super::appointment::Appointment;
use super::seal::{BLOB_LEN_MAX, BLOB_OVERHEAD, Mode};

/// Most fee levels of a blind remedy.
pub const FEE_LEVELS_MAX: usize = 8;

/// Lowest feerate of a level: 0.1 sat/vB, the least that nodes relay.
pub const FEERATE_MIN: FeeRate = FeeRate::from_sat_per_kwu(25);

/// Highest feerate of a level: 4,000 sat/vB, beyond all that was ever needed.
pub const FEERATE_MAX: FeeRate = FeeRate::from_sat_per_kwu(1_000_000);

/// Feerates at which a client signs each penalty in advance, lowest first.
///
/// The default is 4, 32 and 256 sat/vB: a factor of eight is what a remedy overpays at worst,
/// and between two levels a fee input can fill the gap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeeLevels(Vec<FeeRate>);

impl Default for FeeLevels {
    fn default() -> Self {
        Self([1_000, 8_000, 64_000].map(FeeRate::from_sat_per_kwu).to_vec())
    }
}

impl FeeLevels {
    /// Makes levels of 1 to [`FEE_LEVELS_MAX`] ascending feerates.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] naming what is not so.
    pub fn new(feerates: Vec<FeeRate>) -> Result<Self, PolicyError> {
        let count = feerates.len();
        if !(1..=FEE_LEVELS_MAX).contains(&count) {
            return Err(PolicyError::LevelCount { count });
        }
        let allowed = FEERATE_MIN..=FEERATE_MAX;
        if let Some(feerate) = feerates.iter().find(|feerate| !allowed.contains(feerate)) {
            return Err(PolicyError::Feerate { feerate: *feerate });
        }
        match feerates.windows(2).find(|two| two[0] >= two[1]) {
            Some(two) => Err(PolicyError::LevelOrder { feerate: two[1], previous: two[0] }),
            None => Ok(Self(feerates)),
        }
    }

    /// Makes levels at `percents` of an estimate, moved into the allowed range; levels that
    /// coincide there become one. Rounds down.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if there are no or too many percents, or they do not ascend.
    pub fn around(estimate: FeeRate, percents: &[u32]) -> Result<Self, PolicyError> {
        let level = |percent: &u32| {
            let hundredfold = estimate.to_sat_per_kwu().saturating_mul(u64::from(*percent));
            FeeRate::from_sat_per_kwu(hundredfold / 100).clamp(FEERATE_MIN, FEERATE_MAX)
        };
        let mut feerates: Vec<_> = percents.iter().map(level).collect();
        feerates.dedup();
        Self::new(feerates)
    }

    /// Returns the feerates, lowest first.
    pub fn feerates(&self) -> &[FeeRate] {
        &self.0
    }
}

/// Why there can be no such policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No level, or too many.
    #[error("{count} fee levels, allowed is 1 to {max}", max = FEE_LEVELS_MAX)]
    LevelCount {
        /// How many.
        count: usize,
    },
    /// A feerate is outside its range.
    #[error("feerate {feerate} per kwu, allowed is {min} to {max}", min = FEERATE_MIN, max = FEERATE_MAX)]
    Feerate {
        /// The feerate.
        feerate: FeeRate,
    },
    /// Levels do not ascend.
    #[error("fee level {feerate} follows {previous} per kwu; levels must ascend")]
    LevelOrder {
        /// The level.
        feerate: FeeRate,
        /// The level before.
        previous: FeeRate,
    },
    /// Blobs may be shorter than any blob, or longer than the format allows.
    #[error("largest blob of {bytes} bytes, allowed is {BLOB_OVERHEAD} to {BLOB_LEN_MAX}")]
    BlobBytes {
        /// The limit asked for.
        bytes: usize,
    },
    /// The tower would take nothing.
    #[error("{name} is zero; a tower that takes nothing protects nobody")]
    Zero {
        /// The name of the setting.
        name: &'static str,
    },
}

/// What a tower takes from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TowerPolicy {
    /// The feerates it advises blind clients to sign for.
    pub fee_levels: FeeLevels,
    /// Whether it takes remedies with revocation secrets.
    pub trusted: bool,
    /// Longest blob, in bytes.
    pub blob_bytes_max: usize,
    /// Most appointments it keeps for one client.
    pub appointments_max: u64,
    /// Blocks for which a registration counts.
    pub registration_blocks: u32,
}

impl Default for TowerPolicy {
    /// A blind tower: the default levels, blobs up to 64 KiB, 100,000 appointments for a year of
    /// blocks.
    fn default() -> Self {
        Self {
            fee_levels: FeeLevels::default(),
            trusted: false,
            blob_bytes_max: BLOB_LEN_MAX,
            appointments_max: 100_000,
            registration_blocks: 52_560,
        }
    }
}

/// Why a tower does not take an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The registration has ended.
    #[error("registration ended at {expiry}, the chain is at {height}; register again")]
    Expired {
        /// Its last block.
        expiry: absolute::Height,
        /// The best block.
        height: absolute::Height,
    },
    /// The client has left as many as it may.
    #[error("{kept} appointments are kept, {max} allowed; delete those of closed channels")]
    Quota {
        /// How many are kept.
        kept: u64,
        /// How many are allowed.
        max: u64,
    },
    /// The blob is too long.
    #[error("blob of {bytes} bytes, at most {max} are taken; sign fewer fee levels")]
    BlobTooLong {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The tower takes no secrets.
    #[error("blob is for a trusted tower, this one is blind; send presigned pairs")]
    NotTrusted,
}

/// What a tower knows of a client when an appointment arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Appointments it keeps for the client, without a repetition of this one.
    pub kept: u64,
    /// Last block of the registration.
    pub expiry: absolute::Height,
    /// The best block.
    pub height: absolute::Height,
}

impl TowerPolicy {
    /// Checks that a tower can work so.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] naming the first setting that is not possible.
    pub fn check(&self) -> Result<(), PolicyError> {
        if !(BLOB_OVERHEAD..=BLOB_LEN_MAX).contains(&self.blob_bytes_max) {
            return Err(PolicyError::BlobBytes { bytes: self.blob_bytes_max });
        }
        if self.appointments_max == 0 {
            return Err(PolicyError::Zero { name: "appointments_max" });
        }
        if self.registration_blocks == 0 {
            return Err(PolicyError::Zero { name: "registration_blocks" });
        }
        Ok(())
    }

    /// Decides whether an appointment is taken.
    ///
    /// # Errors
    ///
    /// [`Refusal`] naming the reason.
    pub fn admit(&self, appointment: &Appointment, standing: &Standing) -> Result<(), Refusal> {
        let Standing { kept, expiry, height } = *standing;
        if height > expiry {
            return Err(Refusal::Expired { expiry, height });
        }
        if kept >= self.appointments_max {
            return Err(Refusal::Quota { kept, max: self.appointments_max });
        }
        let bytes = appointment.blob.len();
        if bytes > self.blob_bytes_max {
            return Err(Refusal::BlobTooLong { bytes, max: self.blob_bytes_max });
        }
        if appointment.blob.mode() == Mode::Trusted && !self.trusted {
            return Err(Refusal::NotTrusted);
        }
        Ok(())
    }
}
