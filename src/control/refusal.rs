//! Why an append was not answered with offsets, and what the client is told.

use crate::mail::Refusal;

/// Why an append was not answered with offsets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Surely not appended.
    #[error("{reason}; nothing was appended")]
    NotNow {
        /// Code for clients.
        code: &'static str,
        /// Why.
        reason: String,
    },
    /// The log has as many topics as it may have.
    #[error("the log has {limit} topics, the limit `topics`; nothing was appended")]
    TooManyTopics {
        /// The limit.
        limit: u32,
    },
    /// May or may not come out later.
    #[error("{reason}; the outcome is unknown: read the topic before you send it again")]
    Unknown {
        /// Why.
        reason: &'static str,
    },
}

/// Surely not appended; `code` for programs, `reason` for people.
pub(super) fn not_now(code: &'static str, reason: &str) -> AppendError {
    // A ring that halted will not take it later either.
    let again = if code == "halted" { "" } else { "; send it again later" };
    AppendError::NotNow { code, reason: format!("{reason}{again}") }
}

/// What a refusal of the shard means for the client.
pub(super) fn refused(refusal: Refusal) -> AppendError {
    match refusal {
        Refusal::Draining => not_now("draining", "the node is stopping"),
        Refusal::Busy => not_now("busy", "too many appends are open at this node"),
        Refusal::LogFull => {
            not_now("log_full", "the log has no room: free disk space or raise log_bytes")
        }
        Refusal::Halted => {
            not_now("halted", "the ring halted; `chainring status` names the reason")
        }
    }
}
