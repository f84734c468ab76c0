//! Why an append was not answered with offsets, and what the client is told.

use crate::groups::producers::Fence;
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
    /// Records of a producer that get no offsets.
    #[error("{}", fence_text(.0))]
    Fenced(Fence),
    /// May or may not come out later.
    #[error(
        "{reason}; the outcome is unknown: read the topic before you send it again, unless you sent \
         a producer and a sequence: then send the same again"
    )]
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
        Refusal::Removed => not_now("removed", "the node is no member any more; ask another"),
        Refusal::Halted => {
            not_now("halted", "the ring halted; `chainring status` names the reason")
        }
    }
}

fn fence_text(fence: &Fence) -> String {
    match fence {
        Fence::Gap { expected } => {
            format!("records before these are missing: the next sequence is {expected}")
        }
        Fence::OldEpoch { epoch } => {
            format!("the producer is in epoch {epoch}: another life of it has taken over")
        }
        Fence::Forgotten { first } => format!(
            "these records are in the log, and their offsets are not remembered any more; the \
             first sequence that is remembered is {first}"
        ),
        Fence::UnknownProducer => {
            "the producer is not known any more, or never was; these records \
             may be in the log: read the topic, then go on with `Chainring-Producer: new`"
                .to_owned()
        }
        Fence::OtherTopic => "these sequences belong to records of another topic".to_owned(),
    }
}
