//! Coverage marks: how often each rare thing happened, in this process.
//!
//! Always compiled in, on rare branches alone, never once a packet: a relaxed count costs what a
//! branch does. Every crate of the workspace uses the one list here. Invariant: a mark counts
//! something that a run can bring about; nothing reads the counts but whoever reports them.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counts a rare thing: `mark!(WindowFull)`.
#[macro_export]
macro_rules! mark {
    ($name:ident) => {
        $crate::marks::hit($crate::marks::Mark::$name)
    };
}

static COUNTS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

/// Counts; see [`mark!`](crate::mark).
#[cold]
pub fn hit(mark: Mark) {
    COUNTS[mark as usize].fetch_add(1, Ordering::Relaxed);
}

/// How often it happened since the last [`reset`].
pub fn count(mark: Mark) -> u64 {
    COUNTS[mark as usize].load(Ordering::Relaxed)
}

/// Counts from 0 again.
pub fn reset() {
    COUNTS.iter().for_each(|count| count.store(0, Ordering::Relaxed));
}

macro_rules! list {
    ($($name:ident: $text:literal;)*) => {
        /// Something that happens rarely.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {$(
            #[doc = $text]
            $name,
        )*}

        impl Mark {
            /// All of them.
            pub const ALL: &[Mark] = &[$(Mark::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {$(Mark::$name => stringify!($name)),*}
            }

            /// What happened.
            pub fn text(self) -> &'static str {
                match self {$(Mark::$name => $text),*}
            }
        }
    };
}

list! {
    // The core: a node's start.
    RecoveredOrderBeyondWindow: "an order in the log lies beyond the window at the start";
    RecoveredLaterSession: "a value in the log is of a session that nothing was delivered of";
    RecoveredGapInLane: "values in the log have a hole before them";
    RecoveredVoteGoesOn: "a restarted node goes on voting at the ballot it had promised";
    // The core: values and sessions.
    MissingValueCame: "a value that had been declared missing came";
    ValueKnownAlready: "a value came twice, or after its delivery";
    LaneGap: "a value came before the one before it: the link lost something";
    LaneOverrun: "an origin has more undelivered values than its lane takes";
    SessionOver: "a value came of a session that is over";
    SessionHasToWait: "a value came of a session before the one before it was closed";
    SessionTakenUp: "the first value of an origin's session came";
    DeclaredMissing: "the predecessor declared values missing";
    DeclarationPassedOn: "that was declared to the successor as well";
    OwnSessionOpened: "the sessions before the own one were closed";
    CloseRepeated: "a close came again, or an older one than is known";
    OccurrenceIsNothing: "a value was delivered that is not the next of its origin";
    LaneClosed: "a close let go of what was held of a session";
    // The core: orders, promises, votes.
    OrderBelowPromise: "an order of a ballot below the promise was dropped";
    OrderRaisedPromise: "an order showed a higher ballot";
    OrderCameAgain: "an order came twice at the same ballot";
    OrderBelowWindow: "an order came of an instance long gone";
    DeliveredOrderedAgain: "what is delivered here was ordered again at a higher ballot";
    AcceptedOrderRaised: "an accepted entry was ordered again at a higher ballot";
    AcceptedOrderOverwritten: "an accepted entry gave way to another one of a higher ballot";
    CountsFromDelivered: "a ballot began below what is delivered here";
    WindowWentRound: "the window reached its end and began again";
    WindowFull: "an order had no room in the window";
    VoteFrozen: "a vote stood frozen while a higher promise was not durable";
    VoteOfForgetful: "a vote came of a node that forgot its votes";
    ForgetfulAsked: "a node that forgot its votes was asked for a promise";
    PrepareBelowPromise: "a 1A came below the promise";
    PrepareRaisedPromise: "a 1A raised the promise";
    PrepareCameAgain: "a 1A was answered again";
    PrepareTooLate: "a 1A came again after orders of its ballot, or while its answer waits";
    AnswerWaitsForLog: "a 1B waited for the log";
    AnswerWaitsForPromise: "a 1B waited for the superblock";
    AnswerOvertaken: "a higher promise overtook a 1B that waited";
    RejectSent: "somebody was told of a higher promise";
    GaveWay: "a candidate or coordinator heard of a higher promise and gave way";
    // The core: Phase 1.
    FollowerCampaigned: "a follower opened a campaign";
    CandidateCampaignedAgain: "a candidate opened another campaign";
    CoordinatorCampaignedAgain: "a coordinator opened another campaign";
    ForgetfulCampaigned: "a node that forgot its votes opened a campaign";
    PromiseOfAnotherBallot: "a 1B came for another ballot than the candidate's";
    UndamagedAnswersTooFew: "a quorum answered, but too few with undamaged logs";
    CandidateIsBehind: "a candidate had to learn first what others have delivered";
    CandidateLogIsBehind: "a candidate's own log had to follow first";
    UnknownCountsByBound: "an unknown answer counted, for nothing higher can hide behind it";
    CandidateFetches: "a candidate lacked a value that was reported to it";
    ReportsDiffer: "two answers report different entries at one instance";
    BallotInheritsNothing: "a ballot was opened without anything to propose again";
    BallotInherits: "a ballot was opened and proposes again what was reported";
    HoleFilledWithNoop: "a ballot was opened and fills holes with no-ops";
    OrdersHeldBack: "a coordinator waited for the slowest node's window";
    CloseOrdered: "a coordinator closed the sessions of an origin that started again";
    // The core: claims, delivery, catch-up.
    ClaimRaisedPromise: "a claim showed a higher ballot";
    ClaimOfLowerBallot: "a claim of a lower ballot than the promise moved the position decided";
    ClaimDoesNotAuthorise: "what is held is of a lower ballot than the claim that covers it";
    DecidedValueNotHeld: "a decided value had not come yet";
    NoopDelivered: "a no-op was delivered";
    BarrierDelivered: "a barrier was delivered";
    FetchedEntryDropped: "a fetched value was of no use, or not the next of its origin";
    FetchedEntryRaisedPromise: "a fetched entry showed a higher ballot";
    FetchedEntryOverwrites: "a fetched entry took the place of another one accepted here";
    FetchedAndReceived: "a value was fetched and came on the link too";
    FetchedOpensSession: "a fetched value was the first of its session here";
    WindowMovedByCatchUp: "catch-up moved the window";
    // The core: damage.
    BarrierSeenByDamaged: "a damaged node accepted a barrier that may end its damage";
    BarrierOvertaken: "a higher ballot came before the barrier that would have ended the damage";
    DamageMended: "a damaged node knows again what it voted for";
    // The core: timers.
    PreparesRepeated: "a candidate asked again";
    LowestMissedCoordinator: "the lowest node heard no coordinator for a second";
    CoordinatorStuck: "a coordinator saw no progress and opened another ballot";
    CandidateStuck: "a candidate got no further and opened another ballot";
    DataResetForSession: "the data link was reset for values that could not be taken up";
    ControlResetForOrders: "the control link was reset for orders that had no room";
    OrderedValuesFetched: "ordered values did not come and were called for";
    NextValuesFetched: "a coordinator called for values declared missing, to order them";
    EntriesCalledFor: "decided entries were called for";
    CallRepeated: "a call was not answered and was repeated";
    //MORE
}
