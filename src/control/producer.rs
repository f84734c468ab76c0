//! Producers over HTTP: what the headers of a request say, and what a producer is told.
//!
//! Invariant: headers that do not say exactly one thing are refused before anything is appended.

use crate::groups::producers::Fence;
use crate::http::{ProducerHeaders, Response};
use crate::records::Stamp;
use serde_json::Map;

/// Who sends records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Nobody who would repeat them.
    Anyone,
    /// A producer that wants an id; the stamp is that of its first record but for the id.
    New(Stamp),
    /// A producer: the stamp of its first record.
    Known(Stamp),
}

impl Sender {
    /// Reads the headers of a request with `count` records.
    ///
    /// # Errors
    /// What is wrong, for the client.
    pub fn of(headers: &ProducerHeaders, count: usize) -> Result<Sender, String> {
        let ProducerHeaders { producer, epoch, sequence } = headers;
        let Some(producer) = producer else {
            return match (epoch, sequence) {
                (None, None) => Ok(Sender::Anyone),
                _ => Err("Chainring-Epoch and Chainring-Sequence need a Chainring-Producer".into()),
            };
        };
        let most = u64::from(u32::MAX);
        let epoch = number("Chainring-Epoch", epoch.as_deref(), most)?.unwrap_or(0) as u32;
        let most = u64::MAX - count as u64;
        let sequence = number("Chainring-Sequence", sequence.as_deref(), most)?;
        if producer == "new" {
            if sequence.unwrap_or(0) > 0 || epoch > 0 {
                return Err("a new producer begins with epoch 0 and sequence 0".to_owned());
            }
            return Ok(Sender::New(Stamp::default()));
        }
        let wanted = "new, or a number from 0";
        let producer = number_of("Chainring-Producer", producer, u64::MAX, wanted)?;
        match sequence {
            Some(sequence) => Ok(Sender::Known(Stamp { producer, epoch, sequence })),
            None if count == 0 => Ok(Sender::Known(Stamp { producer, epoch, sequence: 0 })),
            None => {
                Err("a producer names the sequence of its first record: Chainring-Sequence".into())
            }
        }
    }
}

fn number(name: &str, text: Option<&str>, most: u64) -> Result<Option<u64>, String> {
    text.map(|text| number_of(name, text, most, "a number from 0")).transpose()
}

/// Digits alone: no sign, nothing around them.
fn number_of(name: &str, text: &str, most: u64, wanted: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number <= most);
    number.ok_or_else(|| format!("{name} is {wanted} to {most}"))
}

/// Why records of a producer got no offsets.
pub(super) fn fenced(fence: Fence, message: &str) -> Response {
    let (status, code, more) = match fence {
        Fence::Gap { expected } => (409, "sequence_gap", Some(("expected_sequence", expected))),
        Fence::OldEpoch { epoch } => (409, "old_epoch", Some(("epoch", u64::from(epoch)))),
        Fence::OtherTopic => (409, "other_topic", None),
        Fence::Forgotten { first } => (410, "sequence_forgotten", Some(("first_sequence", first))),
        Fence::UnknownProducer => (410, "unknown_producer", None),
    };
    let more = more.into_iter().map(|(key, value)| (key.to_owned(), value.into()));
    Response::error_with(status, code, message, Map::from_iter(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: [Option<&str>; 3], count: usize) -> Result<Sender, String> {
        let [producer, epoch, sequence] = headers.map(|header| header.map(str::to_owned));
        Sender::of(&ProducerHeaders { producer, epoch, sequence }, count)
    }

    #[test]
    fn headers_say_who_sends() {
        let stamp = |producer, epoch, sequence| Stamp { producer, epoch, sequence };
        for (headers, count, expected) in [
            ([None, None, None], 3, Sender::Anyone),
            ([Some("new"), None, None], 3, Sender::New(stamp(0, 0, 0))),
            ([Some("new"), Some("0"), Some("0")], 0, Sender::New(stamp(0, 0, 0))),
            ([Some("7"), None, Some("9")], 3, Sender::Known(stamp(7, 0, 9))),
            ([Some("7"), None, None], 0, Sender::Known(stamp(7, 0, 0))),
            (
                [Some("18446744073709551615"), Some("4294967295"), Some("18446744073709551612")],
                3,
                Sender::Known(stamp(u64::MAX, u32::MAX, u64::MAX - 3)),
            ),
        ] {
            assert_eq!(of(headers, count), Ok(expected), "{headers:?}");
        }
    }

    #[test]
    fn headers_that_say_nothing_are_refused() {
        for headers in [
            [None, Some("1"), None],
            [None, None, Some("1")],
            [Some("7"), None, None],
            [Some(""), None, Some("1")],
            [Some("New"), None, None],
            [Some("+7"), None, Some("1")],
            [Some("-7"), None, Some("1")],
            [Some("18446744073709551616"), None, Some("1")],
            [Some("7"), Some("4294967296"), Some("1")],
            [Some("7"), Some("x"), Some("1")],
            [Some("7"), None, Some("18446744073709551613")],
            [Some("7"), None, Some("0x1")],
            [Some("new"), None, Some("1")],
            [Some("new"), Some("1"), None],
        ] {
            assert!(of(headers, 3).is_err(), "{headers:?}");
        }
    }
}
