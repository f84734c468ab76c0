//! The names of what must always be true, and what is said when it was not.
//!
//! Invariant: the names are those of `docs/TESTING.md`, section "Invariants"; a test compares them.

use chainring_ring::ids::NodeId;

macro_rules! invariants {
    ($($name:ident $text:literal,)*) => {
        /// What must always be true.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant {
            $(#[doc = $text] $name,)*
        }

        impl Invariant {
            /// All of them.
            pub const ALL: &'static [Invariant] = &[$(Invariant::$name,)*];

            /// Its name, as in the documentation.
            pub fn name(self) -> &'static str {
                match self { $(Invariant::$name => stringify!($name),)* }
            }

            /// What it says.
            pub fn text(self) -> &'static str {
                match self { $(Invariant::$name => $text,)* }
            }
        }
    };
}

invariants! {
    A1 "at one ballot, an instance has one entry, from one life of the ballot's owner",
    A2 "a promise never falls, and is durable before a vote, 1A or 1B at its ballot leaves",
    A3 "what is accepted was proposed, and is not below the promise; a lower vote is frozen",
    A4 "for one instance one entry is chosen, for ever",
    A5 "what is proposed above a ballot that chose an entry is that entry",
    A6 "decided is what a quorum accepted at one ballot, payloads included; an id has one payload",
    A7 "a vote in any vector is true and was its node's; what is learned is contiguous",
    A8 "an acceptor that forgot takes no part under its old incarnation, and never answers",
    B1 "what is delivered was submitted, byte for byte, and comes once",
    B2 "all deliver the same in the same order",
    B3 "positions and offsets have no gap and never change",
    B4 "of an origin's session, sequences count in order, each once",
    B5 "what was acknowledged stays where it was; what was refused never comes",
    D1 "in sync durability a vote or an answer speaks of stable media",
    D2 "in memory and async durability an answer speaks of a quorum's memory",
    D3 "what a node has is never reported as something that it never had",
    D4 "after an I/O error nothing leaves that life",
    D5 "nothing is let go that is not in the durable state of a quorum, or that may be needed",
    D6 "at equal positions digests are equal",
    D7 "no byte is served that is not the record's",
    L1 "when the faults end, all requests end and all logs become equal",
    L2 "when the faults end, few ballots are opened",
    L3 "no queue grows beyond its cap",
    L4 "without faults a value crosses each of its links once",
    L5 "one slow disk holds up nobody else for long",
    L6 "the same seed gives the same run",
    R2 "what is acknowledged before another request begins has the lower offset",
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was not true.
    pub invariant: Invariant,
    /// When, in simulated time.
    pub at_us: u64,
    /// At which node, where it was one.
    pub node: Option<NodeId>,
    /// In words.
    pub what: String,
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let node = self.node.map_or(0, |node| node.0);
        write!(f, "{} at {} us, node {node}: {}", self.invariant.name(), self.at_us, self.what)?;
        write!(f, " ({})", self.invariant.text())
    }
}
