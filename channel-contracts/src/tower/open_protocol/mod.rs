//! The open tower protocol: JSON over HTTP, one encrypted penalty transaction for each state.
//!
//! Spoken by The Eye of Satoshi (rust-teos) as tower, and by Core Lightning's watchtower-client
//! plugin as client. These are its formats, so that a node of ours can serve such clients and
//! use such towers.
//!
//! - [`penalty`]: the blob, a whole signed penalty transaction.
//! - [`signature`]: recoverable signatures over text and bytes, in zbase32.
//! - [`message`]: the exact bytes that user and tower sign.
//! - [`body`]: the requests, their JSON bodies, and error codes.
//!
//! What it cannot do, compared with ours: one transaction at one feerate, fixed when the state is
//! revoked; no deletion of closed channels; the length of the blob tells the number of inputs.
//! And its nonce is zero: **one txid must never encrypt two transactions**, or both are open to
//! whoever has both blobs and guesses a part of one.
//!
//! Source: rust-teos, `teos-common` and `teos/src/api/http.rs`, as of its protocol version 2.

pub mod body;
pub mod message;
pub mod penalty;
pub mod signature;

pub use body::{
    AddAppointmentRequest, AddAppointmentResponse, ApiError, AppointmentBody, AppointmentStatus,
    Endpoint, ErrorCode, GetAppointmentRequest, GetAppointmentResponse, RegisterRequest,
    RegisterResponse, SubscriptionInfoRequest, SubscriptionInfoResponse, TrackedAppointment,
};
pub use penalty::{OpenPenaltyError, decrypt, encrypt};
pub use signature::{SignatureError, recover, sign, verify};
