//! The JSON bodies of the open tower protocol.
//!
//! Requests are `POST`s with `content-length` and a JSON object, but for the ping, a bare `GET`.
//! Bytes are in hexadecimal; txids are printed the usual way round, locators in the order of
//! transactions. A refusal is an [`ApiError`] with an HTTP status from 400 on.

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use super::message::{self, Subscription};
use crate::tower::Locator;

/// Largest body of `add_appointment`, in bytes. Towers refuse more with HTTP status 413.
pub const ADD_APPOINTMENT_BODY_MAX: usize = 2_048;
/// Longest blob that fits into such a body, in bytes: a penalty of 16 bytes less.
pub const ENCRYPTED_BLOB_MAX: usize = 910;
/// Largest body of `register`, in bytes.
pub const REGISTER_BODY_MAX: usize = 87;
/// Largest body of `get_appointment`, in bytes.
pub const GET_APPOINTMENT_BODY_MAX: usize = 178;
/// Largest body of `get_subscription_info`, in bytes.
pub const SUBSCRIPTION_INFO_BODY_MAX: usize = 127;

/// Bytes of blob that one slot of a subscription pays for.
pub const SLOT_BYTES: usize = 2_048;

/// The requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A user registers, or prolongs its subscription.
    Register,
    /// A user hands over an appointment.
    AddAppointment,
    /// A user asks for an appointment.
    GetAppointment,
    /// A user asks for its subscription.
    GetSubscriptionInfo,
    /// A client asks whether the tower is there. Any status of success will do.
    Ping,
}

impl Endpoint {
    /// Returns the path below the tower's address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Register => "/register",
            Self::AddAppointment => "/add_appointment",
            Self::GetAppointment => "/get_appointment",
            Self::GetSubscriptionInfo => "/get_subscription_info",
            Self::Ping => "/ping",
        }
    }

    /// Returns the HTTP method.
    pub fn method(self) -> &'static str {
        if self == Self::Ping { "GET" } else { "POST" }
    }

    /// Returns the largest body that towers take, in bytes.
    pub fn body_max(self) -> usize {
        match self {
            Self::Register => REGISTER_BODY_MAX,
            Self::AddAppointment => ADD_APPOINTMENT_BODY_MAX,
            Self::GetAppointment => GET_APPOINTMENT_BODY_MAX,
            Self::GetSubscriptionInfo => SUBSCRIPTION_INFO_BODY_MAX,
            Self::Ping => 0,
        }
    }
}

/// Body of `register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// The user's key, 33 bytes.
    pub user_id: PublicKey,
}

/// Answer to `register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterResponse {
    /// The user's key.
    pub user_id: PublicKey,
    /// Slots that are free.
    pub available_slots: u32,
    /// First block for which the subscription counts.
    pub subscription_start: u32,
    /// Height from which it no longer counts.
    pub subscription_expiry: u32,
    /// The tower's signature over [`Subscription::receipt`]. The format allows none.
    pub subscription_signature: Option<String>,
}

impl RegisterResponse {
    /// Returns what the signature is for.
    pub fn subscription(&self) -> Subscription {
        Subscription {
            user: self.user_id,
            available_slots: self.available_slots,
            start: self.subscription_start,
            expiry: self.subscription_expiry,
        }
    }
}

/// An appointment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppointmentBody {
    /// First half of the txid of the revoked commitment.
    #[serde(with = "hex_locator")]
    pub locator: Locator,
    /// The encrypted penalty transaction.
    #[serde(with = "hex_bytes")]
    pub encrypted_blob: Vec<u8>,
    /// The delay of the cheater, in blocks. Do not rely on it: Core Lightning's plugin always says 42.
    pub to_self_delay: u32,
}

impl AppointmentBody {
    /// Returns what the user signs.
    pub fn message(&self) -> Vec<u8> {
        message::add_appointment(self.locator, &self.encrypted_blob, self.to_self_delay)
    }

    /// Returns how many slots it takes: one for each [`SLOT_BYTES`] begun.
    pub fn slots(&self) -> usize {
        self.encrypted_blob.len().div_ceil(SLOT_BYTES)
    }
}

/// Body of `add_appointment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddAppointmentRequest {
    /// The appointment.
    pub appointment: AppointmentBody,
    /// The user's signature over [`AppointmentBody::message`].
    pub signature: String,
}

/// Answer to `add_appointment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddAppointmentResponse {
    /// The locator.
    #[serde(with = "hex_locator")]
    pub locator: Locator,
    /// Height from which the tower watches.
    pub start_block: u32,
    /// The tower's signature over [`message::appointment_receipt`].
    pub signature: String,
    /// Slots that are left.
    pub available_slots: u32,
    /// Height from which the subscription no longer counts.
    pub subscription_expiry: u32,
}

/// Body of `get_appointment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetAppointmentRequest {
    /// The locator.
    #[serde(with = "hex_locator")]
    pub locator: Locator,
    /// The user's signature over [`message::get_appointment`].
    pub signature: String,
}

/// Answer to `get_appointment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetAppointmentResponse {
    /// What the tower has.
    pub appointment: TrackedAppointment,
    /// What became of it.
    pub status: AppointmentStatus,
}

/// What a tower has of an appointment: itself before the breach, both transactions after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrackedAppointment {
    /// It is being watched.
    Watched(AppointmentBody),
    /// The tower has answered a breach.
    Responded {
        /// The revoked commitment that was seen.
        dispute_txid: Txid,
        /// The penalty.
        penalty_txid: Txid,
        /// The penalty in consensus encoding.
        #[serde(with = "hex_bytes")]
        penalty_rawtx: Vec<u8>,
    },
}

/// What became of an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppointmentStatus {
    /// The tower does not have it.
    NotFound,
    /// The tower waits for the breach.
    BeingWatched,
    /// The tower has answered the breach.
    DisputeResponded,
}

/// Body of `get_subscription_info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionInfoRequest {
    /// The user's signature over [`message::SUBSCRIPTION_INFO`].
    pub signature: String,
}

/// Answer to `get_subscription_info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionInfoResponse {
    /// Slots that are free.
    pub available_slots: u32,
    /// Height from which the subscription no longer counts.
    pub subscription_expiry: u32,
    /// All appointments of the user.
    #[serde(with = "hex_locators")]
    pub locators: Vec<Locator>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For a person.
    pub error: String,
    /// For a program; see [`ErrorCode`].
    pub error_code: u8,
}

impl ApiError {
    /// Makes the refusal of a tower.
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self { error: error.into(), error_code: code.code() }
    }

    /// Returns the reason. A code we do not know counts as unexpected.
    pub fn code(&self) -> ErrorCode {
        let known = ErrorCode::ALL.into_iter().find(|code| code.code() == self.error_code);
        known.unwrap_or(ErrorCode::Unexpected)
    }
}

/// Why a tower refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 1: a field is missing.
    MissingField,
    /// 2: a field is empty.
    EmptyField,
    /// 3: a field is of another type.
    WrongFieldType,
    /// 4: a field has another length.
    WrongFieldSize,
    /// 5: a field is not hexadecimal.
    WrongFieldFormat,
    /// 6: the body is no JSON object of this form.
    InvalidRequestFormat,
    /// 7: the signature is wrong, the user unknown, the subscription ended or full.
    InvalidSignatureOrSubscription,
    /// 32: the tower cannot reach its chain.
    ServiceUnavailable,
    /// 33: a field of the appointment is below its minimum.
    AppointmentFieldTooSmall,
    /// 34: a field of the appointment is beyond its maximum.
    AppointmentFieldTooBig,
    /// 35: the breach has been answered already.
    AppointmentAlreadyTriggered,
    /// 36: there is no such appointment.
    AppointmentNotFound,
    /// 65: the user has as many slots as one may have.
    RegistrationResourceExhausted,
    /// 255: anything else.
    Unexpected,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 14] = [
        Self::MissingField,
        Self::EmptyField,
        Self::WrongFieldType,
        Self::WrongFieldSize,
        Self::WrongFieldFormat,
        Self::InvalidRequestFormat,
        Self::InvalidSignatureOrSubscription,
        Self::ServiceUnavailable,
        Self::AppointmentFieldTooSmall,
        Self::AppointmentFieldTooBig,
        Self::AppointmentAlreadyTriggered,
        Self::AppointmentNotFound,
        Self::RegistrationResourceExhausted,
        Self::Unexpected,
    ];

    /// Returns the number in the body.
    pub fn code(self) -> u8 {
        match self {
            Self::MissingField => 1,
            Self::EmptyField => 2,
            Self::WrongFieldType => 3,
            Self::WrongFieldSize => 4,
            Self::WrongFieldFormat => 5,
            Self::InvalidRequestFormat => 6,
            Self::InvalidSignatureOrSubscription => 7,
            Self::ServiceUnavailable => 32,
            Self::AppointmentFieldTooSmall => 33,
            Self::AppointmentFieldTooBig => 34,
            Self::AppointmentAlreadyTriggered => 35,
            Self::AppointmentNotFound => 36,
            Self::RegistrationResourceExhausted => 65,
            Self::Unexpected => 255,
        }
    }

    /// Returns the HTTP status that goes with it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidSignatureOrSubscription => 401,
            Self::AppointmentNotFound => 404,
            Self::ServiceUnavailable => 503,
            _ => 400,
        }
    }
}

/// Bytes as hexadecimal text.
mod hex_bytes {
    use bitcoin::hex::{DisplayHex, FromHex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bytes.to_lower_hex_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        Vec::from_hex(&text).map_err(D::Error::custom)
    }
}

/// A locator as hexadecimal text.
mod hex_locator {
    use serde::{Deserializer, Serializer, de::Error};

    use super::hex_bytes;
    use crate::tower::Locator;

    pub fn serialize<S: Serializer>(locator: &Locator, serializer: S) -> Result<S::Ok, S::Error> {
        hex_bytes::serialize(&locator.0, serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Locator, D::Error> {
        from_bytes(&hex_bytes::deserialize(deserializer)?)
    }

    pub fn from_bytes<E: Error>(bytes: &[u8]) -> Result<Locator, E> {
        let wrong = |_| E::invalid_length(bytes.len(), &"a locator of 16 bytes");
        bytes.try_into().map(Locator).map_err(wrong)
    }
}

/// Locators as a list of hexadecimal texts.
mod hex_locators {
    use bitcoin::hex::FromHex;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::hex_locator;
    use crate::tower::Locator;

    pub fn serialize<S: Serializer>(
        locators: &[Locator],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(locators.iter().map(Locator::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Locator>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let locator = |text: &String| {
            hex_locator::from_bytes(&Vec::<u8>::from_hex(text).map_err(D::Error::custom)?)
        };
        texts.iter().map(locator).collect()
    }
}
