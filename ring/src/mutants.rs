//! Mutants: faults planted on purpose, so that the simulator can show that it would see them.
//!
//! Invariants: without the feature `mutants` there is none, [`mutant!`](crate::mutant) is the
//! constant `false`, and a released binary holds neither faults nor names. With it at most one is
//! planted at a time, chosen at run time, for the whole process. Each breaks a rule that a named
//! invariant guards, never just an assertion, and none only makes things slow.

/// True where the fault of this name is planted: `if mutant!(VoteBeforeFlush) { ... }`.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_planted($crate::mutants::Mutant::$name)
    };
}

/// The constant `false`: this build has no mutants.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "mutants")]
pub use planted::{Mutant, is_planted, plant};

#[cfg(feature = "mutants")]
mod planted {
    use core::sync::atomic::{AtomicUsize, Ordering};

    /// Place in the list of the one planted, counted from 1; 0 for none.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);

    /// Plants a fault in place of the one before, or takes it back.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::Relaxed);
    }

    /// True if this is the one planted.
    pub fn is_planted(mutant: Mutant) -> bool {
        PLANTED.load(Ordering::Relaxed) == mutant as usize + 1
    }

    macro_rules! list {
        ($($name:ident: $invariant:literal, $source:literal, $text:literal;)*) => {
            /// A fault that can be planted.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub enum Mutant {$(
                #[doc = $text]
                $name,
            )*}

            impl Mutant {
                /// All of them.
                pub const ALL: &[Mutant] = &[$(Mutant::$name),*];

                /// Its name.
                pub fn name(self) -> &'static str {
                    match self {$(Mutant::$name => stringify!($name)),*}
                }

                /// The invariants that may catch it.
                pub fn invariant(self) -> &'static str {
                    match self {$(Mutant::$name => $invariant),*}
                }

                /// The rule that it breaks: a pitfall, a rule of the design, a row of the table.
                pub fn source(self) -> &'static str {
                    match self {$(Mutant::$name => $source),*}
                }

                /// What it does.
                pub fn text(self) -> &'static str {
                    match self {$(Mutant::$name => $text),*}
                }
            }
        };
    }

    list! {
        PromiseNotPersisted: "A2", "pitfall 1", "a promise is answered for, but not written";
        SuperblockCached: "A2", "pitfall 28", "the superblock is written into a volatile cache";
        SuperblockWriteUnchecked: "A2 D4", "rule F4", "one written copy of the superblock is enough";
        SuperblockFirstCopy: "A2 A8", "rule F4, row 17", "the first intact copy counts, not the newest of two";
        AcceptBelowPromise: "A3", "reliability list", "an order below the promise is accepted";
        AcceptorSubstitutes: "A1 A3", "pitfall 6", "an acceptor keeps its own entry under the new ballot";
        VoteBeforeFlush: "A4 D1", "pitfall 2", "votes leave before the log is on stable media";
        WriteNotDurable: "A4 D1", "pitfall 28", "the log is written into a volatile cache";
        PersistedOutOfOrder: "A4 D1", "design: votes", "a write that is done vouches for those before it";
        VoteWithoutValue: "A4 A6 D1", "pitfall 5", "a vote covers orders whose values are not held";
        VoteWithoutOrder: "A4 D1", "pitfall 2", "a vote waits for the value to be durable, not for the order";
        OldOrdersVoted: "A4 A7 D1", "pitfall 12", "orders of lower ballots count for the vote";
        VoteExtendedAtPromise: "A3 A4 D1", "pitfall 14", "the vote of a ballot grows when a higher one is promised";
        VotesMergeAcrossBallots: "A4 A7 D1", "pitfall 12", "the position voted for survives a change of ballot";
        QuorumAcrossBallots: "A4 A6 A7", "pitfall 12", "votes of different ballots make one quorum";
        VoteCountedTwice: "A4 A6 A7", "pitfall 11", "the own vote counts twice";
        CoordinatorDecidesAlone: "A4 A6 A7", "pitfall 31", "what the coordinator voted for is decided";
        DeliveredOnAccept: "A4 A6 B2", "pitfall 31", "what is accepted and held is delivered";
        LowerReportWins: "A5", "reliability list", "of two reports the one of the lower ballot is proposed";
        PromiseCountedTwice: "A5", "reliability list", "the own promise counts twice";
        RangeCutShort: "A5", "pitfall 8", "the last instance reported is not proposed again";
        HolesFilledBlindly: "A5", "pitfall 7", "Phase 1 keeps only what the candidate has itself";
        NewBeforeInherited: "A5", "pitfall 32", "new values are ordered inside the inherited range";
        UnknownCounts: "A5", "design: ballots", "unknown counts like never had";
        CampaignWithoutCatchUp: "A5 D3", "design: ballots", "a candidate fills what others have delivered and let go";
        AnswerWithoutFirst: "A5 D3", "design: ballots", "an answer does not name the first instance it covers";
        SessionReused: "A6 B4", "pitfall 4", "a restarted origin numbers new values under the old session";
        AmnesiaUnnoticed: "A8", "pitfall 3", "a node that forgot its votes keeps its incarnation";
        AmnesiacAnswers: "A8", "design: amnesia", "a node that forgot its votes answers 1A, and is counted";
        AmnesiacVotesCount: "A4 A6 A8", "design: amnesia", "votes of an incarnation that is not listed count";
        CleanMarkNotErased: "A8", "design: amnesia", "the mark of a clean stop outlives the next start";
        CleanMarkTooEarly: "A4 A8 D3", "design: amnesia", "the mark of a clean stop is set before all is written";
        StoreMadeAnew: "A8", "rule F6, row 18", "a store that cannot be read is made anew by itself";
        ChangeByOldQuorum: "A4 A6 A7", "design: membership", "a change of the members is in force only when it is delivered";
        OrderedBehindChange: "A4 A5 A6 A7", "pitfall 9", "entries are ordered behind an undecided change";
        JointByOldOnly: "A4 A6 A7", "pitfall 9", "in a joint change the old voters decide alone";
        JointByNewOnly: "A4 A6 A7", "pitfall 9", "in a joint change the new voters decide alone";
        RemovedVotes: "A4 A6 A7", "design: membership", "a removed node's vote counts";
        AdmittedAtOnce: "A4 A6 A8", "design: amnesia", "who forgot its votes votes as soon as it is admitted, without a joint change";
        DuplicateDelivered: "B1 B2", "pitfall 16", "an occurrence that does not count is delivered too";
        DeliverWithoutValue: "B2", "reliability list", "a decided value that is not held is passed over";
        ClaimAuthorisesAll: "B2", "pitfall 13", "a claim authorises orders of lower ballots";
        ReplayBeyondClaim: "A4 A6 B2", "pitfall 13", "recovery delivers all that the log holds";
        ReplayTrustsDamage: "B2", "decision: claim in blocks", "behind damage a block still vouches for older orders";
        ClaimAheadOfLog: "B2", "decision: claim in blocks", "a block says delivered of what is not in the log yet";
        SequenceSkipped: "B4", "design: values", "a later sequence counts before the next one";
        RottenBodyAccepted: "B1 D7", "reliability list", "of a value frame only the header is verified";
        RottenBodyServed: "D7", "rule F5", "a frame read back is not verified";
        ScrubLooksAway: "D7", "design: scrub", "the look over the log sees nothing";
        RepairUnchecked: "D7", "design: scrub", "whatever is found is put in the place of a damaged value";
        RepairForgetsNeighbours: "D7", "design: scrub", "a repair does not keep what shares a block with the value";
        DamageNotTold: "A5 D3", "reliability list", "a damaged node answers never had";
        CutBelowSeal: "A5 B5 D3", "rows 4 to 8", "the log ends at the first damage";
        SuperblockSealIgnored: "A5 B5 D3", "rows 9 to 11", "damage that only the superblock's seal covers is cut";
        GapIgnored: "A5 D3", "row 6, gap", "a log ends before a segment that is gone";
        AloneGoesOn: "B3 B5 D1", "row 4", "a lone node starts without what it acknowledged";
        LostValuesForgotten: "A5 D3", "row 5", "values that are damaged are not recorded as unknown";
        LostGroupForgotten: "A5 D3", "row 6", "a group that is gone is not recorded as unknown";
        RollEndsLog: "A5 D3", "row 2", "a log ends with its first full segment";
        ChainUnchecked: "A5 D3", "rows 6 and 10", "a group that does not follow the one before is taken";
        MendedTooEarly: "A5 D3", "rows 7 and 8", "damage counts as repaired at the first order";
        RecoveredValuesForgotten: "A5 D3", "design: values", "undelivered values are let go at a restart";
        SessionsOverlap: "A5 D3", "design: values", "a session begins before the one before is closed";
        OutboxOverfilled: "L3", "design: limits", "the loop takes in more than the outbox can hold";
        HandshakesPileUp: "L3", "design: limits", "connections in a handshake are not limited";
        WriteErrorIgnored: "D1 D4", "reliability list", "a failed write counts as done";
        ShortWriteAccepted: "D1 D4", "reliability list", "a write cut short counts as done";
        RepeatAppended: "B1 B4", "design: exactly once", "records that a producer repeats are appended again";
        OverlapAppended: "B1 B4", "design: exactly once", "of records that a producer repeats in part all are appended";
        RepeatMoved: "B4 B5", "design: exactly once", "a repeated request is answered with the end of the topic";
        OldEpochAppended: "B4 B5", "design: exactly once", "records of an older epoch of a producer count";
        ProducersNotReplayed: "B1 D6", "pitfall 27", "a restart forgets which records of producers are there";
        ProducersNotInState: "B1 B4 D6", "pitfall 27", "a checkpoint leaves out the producers";
        TrimAheadOfQuorum: "D5", "reliability list", "a trim does not wait for the checkpoints of a quorum";
        JumpsBack: "B2 B3", "design: trim", "a snapshot below what is delivered is taken";
        LiveValueFreed: "A5 D3 D5", "design: trim", "a segment is freed with a value that is not delivered";
        CheckpointNotDurable: "D5", "rule F5", "a checkpoint is named before it is on stable media";
        SlowNotSeen: "L5", "design: layout", "a node that holds the others up is not noticed";
        OutsideHoldsBack: "L5", "design: layout", "credits wait for who is outside the circle, too";
        SlowOneClings: "L5", "design: layout", "a coordinator whose own disk is slow stays";
        ForwardedToOrigin: "L4", "pitfall 29", "a value is passed on to its origin";
    }
}
