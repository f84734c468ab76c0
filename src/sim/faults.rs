//! Which faults happen: drawn from streams of their own, counted, and written down.
//!
//! Every fault that took effect has a name: its kind and how many draws of that kind came before.
//! A run that is given names lets these faults happen and no others; so a failure can be shrunk
//! by leaving faults out. Invariant: a draw of one kind never moves the draws of another.

use crate::sim::journal::{Fault, Journal, Place};
use crate::sim::random::Random;
use std::collections::BTreeSet;

macro_rules! kinds {
    ($($name:ident, $class:ident, $text:literal;)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $(#[doc = $text] $name),* }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// In words.
            pub fn text(self) -> &'static str {
                match self { $(Kind::$name => $text),* }
            }

            /// As it is counted.
            pub fn class(self) -> Class {
                match self { $(Kind::$name => Class::$class),* }
            }
        }
    };
}

/// How faults are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One frame.
    Packet,
    /// One read or write, or its image.
    Storage,
    /// A node or a part of the network.
    Macro,
    /// Nothing but time: not counted.
    Time,
}

kinds! {
    Lose, Packet, "a frame is lost";
    Double, Packet, "a frame arrives twice";
    Hold, Packet, "a frame is held up, and all behind it";
    Spoil, Packet, "a frame is corrupted";
    Break, Packet, "a connection breaks in a frame";
    Cut, Packet, "a frame meets a partition";
    Tear, Storage, "a write is lost or torn by a power failure";
    Rot, Storage, "a sector rots at rest";
    ReadError, Storage, "a read fails";
    ReadSpoilt, Storage, "a read brings other bytes";
    WriteError, Storage, "a write fails";
    WriteShort, Storage, "a write is cut short";
    WriteLost, Storage, "a write is reported and lost";
    WriteAstray, Storage, "a write lands elsewhere";
    Full, Storage, "the disk is full";
    Slow, Time, "a write takes very long";
    Latent, Storage, "a sector cannot be read any more";
    Crash, Macro, "a process is killed";
    Power, Macro, "a machine loses power";
    Pause, Macro, "a process stands still";
    Part, Macro, "the network is partitioned";
    DiskLoss, Macro, "a disk is lost";
    Campaign, Macro, "a node is told to campaign";
    Clock, Macro, "a clock jumps";
    Stop, Macro, "a node is stopped in good order";
    HeadRot, Storage, "the header of a segment rots";
    CopyRot, Storage, "copies of a superblock rot";
    LastRot, Storage, "the last write rots while the machine is down";
    SegmentLost, Storage, "a segment is lost";
    Misplaced, Storage, "a group lies where another one should";
    Hang, Storage, "a write hangs for seconds";
    Late, Packet, "a hello is held up for seconds";
    Foreign, Macro, "a node is given what is another's";
    Mistake, Macro, "a node is started with a mistake in its configuration";
    Stranger, Macro, "somebody connects and says nothing";
    Rush, Time, "all nodes get requests at once";
    Stall, Packet, "a connection stands still for seconds";
}

/// A fault that took effect: its kind, and its place among the draws of that kind.
pub type Name = (Kind, u64);

/// Draws faults.
#[derive(Debug)]
pub struct Faults {
    streams: Vec<Random>,
    draws: Vec<u64>,
    counts: Vec<u64>,
    /// Only these may happen.
    only: Option<BTreeSet<Name>>,
    journal: Journal,
    /// No faults any more: the world heals.
    off: bool,
}

impl Faults {
    /// Faults of a seed; with `only`, exactly these, as far as they are drawn.
    pub fn new(seed: u64, only: Option<BTreeSet<Name>>, journal: Journal) -> Faults {
        let kinds = Kind::ALL.len();
        Faults {
            streams: (0..kinds as u64)
                .map(|kind| Random::stream(seed, "faults").split(kind))
                .collect(),
            draws: vec![0; kinds],
            counts: vec![0; kinds],
            only,
            journal,
            off: false,
        }
    }

    /// Whether a fault happens now, `rate` times in a million. Not counted yet: see
    /// [`Faults::took`].
    pub fn draw(&mut self, kind: Kind, rate: u32) -> bool {
        if rate == 0 || self.off {
            return false;
        }
        let index = kind as usize;
        self.draws[index] += 1;
        let hit = self.streams[index].chance(rate);
        let name = (kind, self.draws[index]);
        self.only.as_ref().map_or(hit, |only| only.contains(&name))
    }

    /// The fault drawn last of this kind took effect, at that place.
    pub fn took(&mut self, kind: Kind, at: u64, place: Place) {
        self.struck(kind, self.draws[kind as usize], at, place);
    }

    /// Whether the `index`-th large fault of the plan may happen.
    pub fn allows(&self, kind: Kind, index: u64) -> bool {
        !self.off && self.only.as_ref().is_none_or(|only| only.contains(&(kind, index)))
    }

    /// The `index`-th large fault of the plan took effect.
    pub fn struck(&mut self, kind: Kind, index: u64, at: u64, place: Place) {
        self.count(kind, 1);
        self.journal.fault(Fault { at, name: (kind, index), place });
    }

    /// So many faults of a kind took effect that nobody drew one by one.
    pub fn count(&mut self, kind: Kind, count: u64) {
        self.counts[kind as usize] += count;
    }

    /// The stream of a kind, for what else has to be drawn of a fault.
    pub fn stream(&mut self, kind: Kind) -> &mut Random {
        &mut self.streams[kind as usize]
    }

    /// The world heals.
    pub fn stop(&mut self) {
        self.off = true;
    }

    /// Faults that took effect, by class.
    pub fn counted(&self, class: Class) -> u64 {
        Kind::ALL
            .iter()
            .filter(|kind| kind.class() == class)
            .map(|kind| self.counts[*kind as usize])
            .sum()
    }

    /// Faults of one kind that took effect.
    pub fn counted_of(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }
}
