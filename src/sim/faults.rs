//! Which faults happen: drawn from streams of their own, counted, and written down.
//!
//! Every fault that took effect has a name: its kind and how many draws of that kind came before.
//! A run that is given names lets these faults happen and no others; so a failure can be shrunk
//! by leaving faults out. Invariant: a draw of one kind never moves the draws of another.

use crate::sim::journal::{Fault, Journal, Place};
use crate::sim::random::Random;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// No fault as the goals define it: nothing but time, an operator's order, a stranger's visit.
    /// Told by kind alone.
    Other,
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
    Slow, Other, "a write takes very long";
    Latent, Storage, "a sector cannot be read any more";
    Crash, Macro, "a process is killed";
    Power, Macro, "a machine loses power";
    Pause, Macro, "a process stands still";
    Part, Macro, "the network is partitioned";
    DiskLoss, Macro, "a disk is lost";
    Campaign, Other, "a node is told to campaign";
    Clock, Macro, "a clock jumps";
    Stop, Other, "a node is stopped in good order";
    HeadRot, Storage, "the header of a segment rots";
    CopyRot, Storage, "copies of a superblock rot";
    LastRot, Storage, "the last write rots while the machine is down";
    SegmentLost, Storage, "a segment is lost";
    Misplaced, Storage, "a group lies where another one should";
    Hang, Other, "a write hangs for seconds";
    Late, Packet, "a hello is held up for seconds";
    Foreign, Macro, "a node is given what is another's";
    Mistake, Macro, "a node is started with a mistake in its configuration";
    Stranger, Other, "somebody connects and says nothing";
    StoreError, Storage, "a write of the superblock or of a new segment fails";
    StoreShort, Storage, "such a write is cut short";
    StoreFull, Storage, "such a write finds no room";
    SyncError, Storage, "a sync fails, and the next one lies";
    NameError, Storage, "a file cannot be made, named, removed or its name made durable";
    Rush, Other, "all nodes get requests at once";
    Stall, Packet, "a connection stands still for seconds";
    Absent, Macro, "a node is down while all else is healed";
    StartPower, Macro, "a machine loses power in the middle of a start";
    CopyBad, Storage, "a copy of a superblock is bad for good";
    Drag, Other, "a disk is slow for seconds, and all else is well";
    Member, Macro, "a node is removed, or comes back as another life";
}

/// A fault that took effect: its kind, and its place among the draws of that kind.
pub type Name = (Kind, u64);

/// Draws, each kind from a stream of its own. A world has several: one for all that its nodes
/// share, and one for each disk.
#[derive(Clone, Debug)]
pub struct Dice {
    streams: Vec<Random>,
    draws: Vec<u64>,
    /// Only these may happen.
    only: Option<Arc<BTreeSet<Name>>>,
    /// Whose: names of different dice differ.
    who: u8,
}

impl Dice {
    /// Dice over a stream, for `who`; with `only`, these faults happen, as far as they are drawn.
    pub fn new(random: &Random, who: u8, only: Option<Arc<BTreeSet<Name>>>) -> Dice {
        let kinds = Kind::ALL.len();
        let streams = (0..kinds as u64).map(|kind| random.split(kind)).collect();
        Dice { streams, draws: vec![0; kinds], only, who }
    }

    /// Whether a fault happens now, `rate` times in a million; if so, it is the last of its kind.
    pub fn draw(&mut self, kind: Kind, rate: u32) -> bool {
        if rate == 0 {
            return false;
        }
        let index = kind as usize;
        self.draws[index] += 1;
        let hit = self.streams[index].chance(rate);
        let name = self.last(kind);
        self.only.as_ref().map_or(hit, |only| only.contains(&name))
    }

    /// The name of what was drawn last of a kind.
    pub fn last(&self, kind: Kind) -> Name {
        (kind, self.draws[kind as usize] << 8 | u64::from(self.who))
    }

    /// The stream of a kind, for what else has to be drawn of a fault.
    pub fn stream(&mut self, kind: Kind) -> &mut Random {
        &mut self.streams[kind as usize]
    }
}

/// Draws faults.
#[derive(Debug)]
pub struct Faults {
    dice: Dice,
    counts: Vec<u64>,
    journal: Journal,
    /// No faults any more: the world heals.
    off: bool,
}

impl Faults {
    /// Faults of a seed; with `only`, exactly these, as far as they are drawn.
    pub fn new(seed: u64, only: Option<Arc<BTreeSet<Name>>>, journal: Journal) -> Faults {
        let dice = Dice::new(&Random::stream(seed, "faults"), 0, only);
        Faults { dice, counts: vec![0; Kind::ALL.len()], journal, off: false }
    }

    /// Whether a fault happens now, `rate` times in a million. Not counted yet: see
    /// [`Faults::took`].
    pub fn draw(&mut self, kind: Kind, rate: u32) -> bool {
        !self.off && self.dice.draw(kind, rate)
    }

    /// The fault drawn last of this kind took effect, at that place.
    pub fn took(&mut self, kind: Kind, at: u64, place: Place) {
        self.happened(self.dice.last(kind), at, place);
    }

    /// A fault that was drawn elsewhere took effect.
    pub fn happened(&mut self, name: Name, at: u64, place: Place) {
        self.count(name.0, 1);
        self.journal.fault(Fault { at, name, place });
    }

    /// Whether the `index`-th large fault of the plan may happen.
    pub fn allows(&self, kind: Kind, index: u64) -> bool {
        !self.off && self.dice.only.as_ref().is_none_or(|only| only.contains(&(kind, index)))
    }

    /// The `index`-th large fault of the plan is under way; it is counted when it takes effect.
    pub fn armed(&mut self, kind: Kind, index: u64, at: u64, place: Place) {
        self.journal.fault(Fault { at, name: (kind, index), place });
    }

    /// So many faults of a kind took effect that nobody drew one by one.
    pub fn count(&mut self, kind: Kind, count: u64) {
        self.counts[kind as usize] += count;
    }

    /// The stream of a kind, for what else has to be drawn of a fault.
    pub fn stream(&mut self, kind: Kind) -> &mut Random {
        self.dice.stream(kind)
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
