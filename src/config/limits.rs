//! Every limit of a node, in one list: key, type, default, and the sum that the default comes from.
//!
//! Invariant: the comment here is the comment in the file that `init` writes; there is no second
//! copy to go stale. Full means back-pressure to the client, never growth.

use serde::Deserialize;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $value:expr),* $(,)?) => {
        /// Limits of a node. Bytes unless the name ends otherwise.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(default)]
        pub struct Limits { $($(#[doc = $doc])+ pub $name: $kind),* }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: $value),* }
            }
        }

        impl Limits {
            /// The keys of the section, in order.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Key (with the section), value and comment lines of every limit, in order.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64, &[&'static str])) {
                $(f(concat!("limits.", stringify!($name)), u64::from(self.$name), &[$($doc),+]);)*
            }
        }
    };
}

limits! {
    /// Largest record, its line feed counted. 1 MiB. Equal on all nodes.
    record_bytes: u32 = 1 << 20,
    /// A packet is filled up to here under load; one larger record has a packet of its own.
    /// 256 KiB: the largest that still spreads evenly over a window. Equal on all nodes.
    packet_bytes: u32 = 256 << 10,
    /// Undelivered bytes of one origin on their way. 1 MiB = 4 packets of 256 KiB: what
    /// loopback and 10 gigabit want; a gigabit link is full from 256 KiB on. Equal on all nodes.
    window_bytes: u32 = 1 << 20,
    /// Instances that are open at a time, a power of two from 16 to 4096. 4096 x 48 bytes of order
    /// = 192 KiB for the largest answer to a new ballot. Equal on all nodes.
    window_instances: u32 = 4096,
    /// Memory for packets that would hold up the receive buffer, or were fetched. 32 MiB: what 7
    /// origins may have undelivered, each a window of bytes in packets that take 4 KiB at least
    /// (512 of them), and one largest packet for the value that is delivered next.
    side_pool_bytes: u32 = 32 << 20,
    /// The log kept in memory (memory durability), oldest dropped first. 1 GiB.
    memory_log_bytes: u64 = 1 << 30,
    /// One segment file, written with zeros in advance. 64 MiB holds 16 groups of at most 4 MiB.
    segment_bytes: u32 = 64 << 20,
    /// All segments of the log together. 256 GiB = 4096 segments of 64 MiB.
    log_bytes: u64 = 256 << 30,
    /// The state is written down after so much log: a start replays about that much. 256 MiB, a
    /// second or two of a full gigabit link. Several segments, or it is written for each.
    checkpoint_bytes: u64 = 256 << 20,
    /// Keep at least so much log and let go of what is older; 0 keeps all, until log_bytes is
    /// reached and appends are refused. The coordinator's counts.
    retention_bytes: u64 = 0,
    /// Let go of what is older than this, by the coordinator's clock; 0 keeps all.
    retention_seconds: u64 = 0,
    /// One write to the log takes up to this, and one packet more. 1 MiB: beyond, only the
    /// latency grows.
    group_bytes: u32 = 1 << 20,
    /// Orders in one write to the log. 2048 x 48 bytes = 96 KiB of order block.
    group_orders: u32 = 2048,
    /// Writes to the log in flight. 2: one on its way while the next one fills.
    groups_in_flight: u32 = 2,
    /// Async durability: the oldest unwritten byte is at most this old.
    async_behind_ms: u32 = 100,
    /// Async durability: at most this much is unwritten.
    async_behind_bytes: u32 = 64 << 20,
    /// Letters between the shard and the control thread, each way. 65,536 x 128 bytes = 8 MiB:
    /// what a shard delivers in the 50 ms that the control thread may be busy with a read.
    mailbox_letters: u32 = 65_536,
    /// Catch-up and fetch for one peer, bytes per second; a quarter more than the ring delivers, if
    /// that is higher. 200 MB/s leaves a 10 gigabit link free for the ring.
    fetch_bytes_per_s: u64 = 200_000_000,
    /// The log is looked over for damage at this rate, again and again, bytes per second. 4 MB/s:
    /// little for any disk, and all of 256 GiB in 18 hours; a week is the most.
    scrub_bytes_per_s: u64 = 4_000_000,
    /// An append that is not delivered by then is answered with 504, outcome unknown.
    append_timeout_ms: u32 = 10_000,
    /// A node that stops waits so long for what is open.
    drain_ms: u32 = 10_000,
    /// Body of one HTTP request. 64 MiB.
    http_body_bytes: u32 = 64 << 20,
    /// Records in one HTTP answer, and the memory it is made in. 64 MiB; a client goes on at
    /// the next offset that the answer names.
    http_answer_bytes: u32 = 64 << 20,
    /// All HTTP bodies and answers in memory. 512 MiB: a quarter, two largest answers, is for
    /// answers; the rest holds the worst body, 64 MiB of empty lines with 4 bytes for the end of
    /// each (320 MiB), and one other.
    http_memory_bytes: u32 = 512 << 20,
    /// HTTP connections at a time. 1,024 x 16 KiB of header = 16 MiB.
    http_connections: u32 = 1024,
    /// Request line and headers of one HTTP request. 16 KiB.
    http_header_bytes: u32 = 16 << 10,
    /// From the first byte of an HTTP request to the end of its headers; and the longest pause
    /// within a body or an answer.
    http_header_ms: u32 = 10_000,
    /// A connection without a request is closed after this.
    http_idle_ms: u32 = 60_000,
}

#[cfg(test)]
impl Limits {
    /// Small ones that a node starts with: four packets of 1 KiB in a window.
    pub(crate) fn small() -> Limits {
        Limits {
            record_bytes: 512,
            packet_bytes: 1024,
            window_bytes: 4096,
            group_bytes: 4096,
            group_orders: 64,
            segment_bytes: 512 << 10,
            ..Limits::default()
        }
    }
}
