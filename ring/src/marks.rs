//! Coverage marks: how often each rare thing happened, in this process.
//!
//! Always compiled in, on rare branches. Some of these are rare only until a node is pressed hard:
//! so a mark counts to [`ENOUGH`] and then costs a load and a branch. Every crate of the workspace
//! uses the one list here. Invariant: a mark counts something that a run can bring about; nothing
//! reads the counts but whoever reports them.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counts a rare thing: `mark!(WindowFull)`.
#[macro_export]
macro_rules! mark {
    ($name:ident) => {
        $crate::marks::hit($crate::marks::Mark::$name)
    };
}

static COUNTS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

/// Counts, about to here; beyond, nobody wants to know.
pub const ENOUGH: u64 = 100_000;

/// Counts; see [`mark!`](crate::mark).
#[inline]
pub fn hit(mark: Mark) {
    let count = &COUNTS[mark as usize];
    if count.load(Ordering::Relaxed) < ENOUGH {
        add(count);
    }
}

#[cold]
fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
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
    DeclareHasToWait: "a declaration would have pushed a held value out of its lane";
    LaneGap: "a value came before the one before it: the link lost something";
    LaneOverrun: "an origin has more undelivered values than its lane takes";
    SessionOver: "a value came of a session that is over";
    SessionHasToWait: "a value came of a session before the one before it was closed";
    SessionTakenUp: "the first value of an origin's session came";
    DeclaredMissing: "the predecessor declared values missing";
    DeclarationPassedOn: "that was declared to the successor as well";
    OwnSessionOpened: "the sessions before the own one were closed";
    TrimOrdered: "a coordinator ordered that what is old be let go";
    Jumped: "a state of a peer took the place of what was delivered";
    JumpOvertaken: "a state of a peer came that is no further than this node";
    JumpRaisedPromise: "a state of a peer came from under a higher ballot";
    JumpPassedOwnClose: "the close of an own session lies below a state that came";
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
    InheritedFillsWindow: "what a ballot inherited left no room for its barrier";
    CandidateLogIsBehind: "a candidate's own log had to follow first";
    UnknownBounded: "an unknown answer counted, for nothing higher can hide behind it";
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
    // The core: failover.
    CandidateReachesTooFew: "a candidate that no quorum answered gave up";
    CandidateWaitsForMore: "a candidate with a quorum waited for the others of the circle";
    CoordinatorHinted: "a connection to the coordinator broke";
    OutsideTheCircle: "a node outside the circle said that it is there";
    DigestsAgree: "two nodes compared their digests at a position: equal";
    DigestTooOld: "a digest was told of a position that is no longer noted";
    NodeReady: "a node has everything that was decided before it started";
    PredecessorMissed: "a node told the coordinator that it misses its predecessor";
    AsksForCoordinator: "a node that misses the coordinator asked whether others do";
    CoordinatorMissedByQuorum: "a quorum missed the coordinator, and a node campaigned";
    CandidateAnswersAsk: "a candidate at work answered who asked for it";
    DeafForATick: "nothing was taken in since the last tick, for want of room";
    AskedWhileHearing: "a node was asked for the coordinator and hears it";
    OpenBelowPromise: "a coordinator's word was below the promise";
    OpenRaisedPromise: "a coordinator's word raised the promise";
    CircleBroken: "a coordinator opened a ballot for a link that carries nothing";
    CircleHasNoOther: "a link carries nothing and no circle can do without it";
    CircleLeavesOut: "a ballot's circle left a node out";
    CircleTakesAll: "a circle took who is behind, for there was no quorum without";
    SlowLeftOut: "a node that held the others up was left out";
    CoordinatorResigned: "a coordinator that held the others up made room for another";
    CoordinatorGaveUp: "the owner of a ballot said that it coordinates no more";
    NodeReturns: "a node outside the circle was taken back";
    BallotForDamaged: "a node of the circle came back with a damaged log: another ballot is due";
    BallotAbove: "a coordinator opened a ballot above one that somebody had promised";
    // The core: timers.
    PreparesRepeated: "a candidate asked again";
    CoordinatorStuck: "a coordinator saw no progress and opened another ballot";
    CandidateStuck: "a candidate got no further and opened another ballot";
    DataResetForSession: "the data link was reset for values that could not be taken up";
    ControlResetForOrders: "the control link was reset for orders that had no room";
    HeldValuesResent: "a value was held for long and not ordered: the successor was asked again";
    OrderedValuesFetched: "ordered values did not come and were called for";
    NextValuesFetched: "a coordinator called for values declared missing, to order them";
    EntriesCalledFor: "decided entries were called for";
    CallRepeated: "a call was not answered and was repeated";
    // The log: the table of recovery.
    Row1Kept: "row 1: a complete group was kept";
    Row2Rolled: "row 2: the log goes on in the next segment";
    Row3Foreign: "row 3: a block of another log was found";
    Row4Alone: "row 4: a lone node refused to start on damage";
    Row5ValuesLost: "row 5: values below a seal are damaged";
    Row6GroupLost: "row 6: a group below a seal is gone";
    Row7ValuesRepaired: "row 7: as row 5, and repaired since";
    Row8GroupRepaired: "row 8: as row 6, and repaired since";
    Row9End: "row 9: the log ends with nothing behind it";
    Row10Torn: "row 10: the last write was torn";
    Row11Hole: "row 11: a later write landed, the one before it did not";
    CoveredByLog: "a seal in the log covers what is damaged";
    CoveredBySuperblock: "only the superblock's seal covers what is damaged";
    CoveredByGap: "a segment is missing below one that is there";
    EndReadsOtherwise: "the end of a log was read twice and brought different bytes";
    EndUnread: "a start was refused, for what could not be read at the end of the log";
    FoundGarbage: "bytes that are no group lie where one should begin";
    FoundEmpty: "zeros lie where a group should begin";
    FoundStale: "a block of an earlier life lies where a group should begin";
    FoundUnchained: "a block that does not follow lies where a group should begin";
    ZerosBeforeRemains: "zeros are the first sectors of a torn write";
    ValueHeaderDamaged: "the header of a value frame in a group is damaged";
    ValueBodyDamaged: "the body of a value frame in a group is damaged";
    SegmentHeaderDamaged: "the header of a segment is damaged";
    TailLost: "damage reaches to the end of the log";
    // The log: start, segments, reads, writes.
    StartsDamaged: "a node starts with damage that is not repaired";
    DamageReadsAgain: "damage that was recorded reads well now, or has changed";
    CutRaisesSeal: "a cut leaves a group that nothing but the superblock seals";
    CutZeroed: "what was cut was overwritten with zeros";
    SegmentRemoved: "a segment behind a cut was removed";
    GoesOnBehindLostTail: "the log goes on behind a tail that is lost";
    SegmentMadeToGoOn: "the segment to go on in had to be made at the start";
    StartsFull: "there was no room to make segments ahead at the start";
    SegmentHasNoRoom: "a segment could not be made for want of room";
    HalfSegmentRemoved: "a crash left half a segment";
    LogRolled: "the log went on to the next segment";
    LogLacksSegment: "a group had to wait for a segment";
    WritesOverlap: "a group was written while another one was";
    WritesDoneOutOfOrder: "a later group was complete before an earlier one";
    SectorUnreadable: "the disk did not give a sector";
    FrameDamagedInLog: "a frame read back from the log is damaged";
    MemoryLogWentRound: "the memory log reached its end and began again";
    SuperblockFollows: "no two copies of the superblock agree: one counts that follows another";
    SuperblockHeldByTwo: "the superblock that counts is held by two copies";
    SuperblockHeldByThree: "the superblock that counts is held by three copies";
    SuperblockUnfinished: "a newer superblock was never finished and is passed over";
    SuperblockUnreadable: "no copy of the superblock counts";
    SuperblockMissing: "there is no superblock";
    SuperblockForeign: "the superblock is of another node";
    SuperblockCopyFailed: "a copy of the superblock could not be written, three could";
    SuperblockCopyUnread: "a copy of the superblock is not intact: sequences go on far ahead";
    SuperblockWriteGivenUp: "a write of the superblock ends, lest no copy counts";
    SuperblockPoisoned: "too few copies of the superblock could be written";
    // The node: its start and its end.
    LifeForgets: "a node begins a life without knowing what it had promised";
    CleanStopFound: "a node starts after a clean stop";
    ClaimOnlyInSeal: "only a seal says how far the log is delivered";
    ReplayBehindDamage: "behind damage a block's word does not authorise an older order";
    ReplayLacksValue: "replaying the log ended at a value that is not there";
    ReplayHoldsTooMuch: "behind damage more values seem undelivered than are kept";
    Drained: "a node had nothing left to do before its end";
    CleanStop: "a node stopped with everything on stable media";
    StopMeetsFullLog: "a node stopped while its log could not go on";
    // The node: the log's side of the loop.
    WriteFailed: "a write of the log failed";
    WriteCutShort: "a write of the log was cut short";
    SuperblockWriteFailed: "the superblock could not be written under a running node";
    SealWritten: "an idle log was sealed";
    GroupFullOfOrders: "a group took no more orders";
    GroupFullOfValues: "a group took no more values";
    LogFull: "no further segment could be had";
    LogFullNoMore: "a full log got another segment";
    AsyncLogTooFarBehind: "the log was too far behind for votes to go on";
    // The node: the loop, its memory and its links.
    LoopHasNoRoom: "the loop took in only what gives room back";
    PacketMovedAside: "a packet that held up the receive buffer was moved";
    PacketHeldBeside: "a packet was held beside another one of its origin and place";
    SidePoolFull: "the side pool had no room";
    OwnPoolFull: "the pool of own packets had no room";
    ForwardWaits: "a packet waited for room on the way to the successor";
    ForwardHasNoLink: "a packet found no link to the successor";
    WaitingForwardForgotten: "a packet waited for a link that went down";
    CircleChanged: "a node got other neighbours";
    LinkOfNoNeighbour: "a link came of a node that is no neighbour any more";
    LinkReset: "a node closed a link of its own to have it resume";
    DeclarationHasNoRoom: "a declaration found no memory";
    ResumedFromMemory: "a data link resumed with what is still held";
    ResumedBehindGap: "a data link resumed behind values that are held no more";
    ResumedByDeclaring: "a data link resumed by declaring what is held no more";
    SuccessorIsAhead: "the successor is at a later session than this node";
    ControlResumesInBallot: "a control link resumed in the ballot that both are at";
    CursorSkipsToBase: "the orders passed on went on at a ballot's base";
    CursorSkipsHole: "the orders passed on skipped a hole that nobody will fill";
    FreedSegmentFound: "a start found a segment that was freed before";
    CheckpointNamedLate: "a start names a checkpoint that the life before did not come to name";
    CheckpointFellBack: "a start used an older checkpoint than the newest";
    CheckpointTorn: "a checkpoint could not be used";
    StateTakenOver: "a node went on from a peer's state";
    PassedValueFreed: "a held value was freed that a peer's state had come by";
    OwnValuePassed: "an own value was delivered below a peer's state";
    SegmentFreed: "a segment was freed";
    StateLost: "a start found no checkpoint that its log goes on from";
    // Membership.
    ConfigurationChanged: "a change of the configuration was delivered";
    LearnsWithoutCoordinator: "a node that hears no coordinator learnt what others had delivered";
    ChangeOrdered: "a change of the configuration was ordered";
    CandidateSawChange: "a change was reported to a candidate that it has not delivered";
    InheritedChangeFirst: "an inherited change had to be decided before what lies behind it";
    CoordinatorRemoved: "a coordinator that is no member any more stepped down";
    RemovedLeavesCircle: "a ballot was opened because somebody removed was in the circle";
    LearnerIsBehind: "a learner in the circle had not caught up yet";
    ReadmittedByItself: "a node that forgot its votes was admitted again by itself";
    RemovedIsClosed: "all sessions of a removed node were closed";
    // The node: requests and topics.
    AppendMeetsHalt: "a request met a ring that has halted for good";
    AppendMeetsFullLog: "a request met a full log";
    AppendMeetsDrain: "a request met a node about to stop";
    RequestTakesTwoPackets: "a request did not fit into the packet being filled";
    LargePacketGoesAlone: "a packet larger than the window was sent alone";
    ClosedValueFreed: "a held value of a closed session was freed";
    TopicKnownAlready: "a topic was created twice";
    ProducerRepeats: "records of a producer were delivered that were all in the log before";
    ProducerOverlaps: "records of a producer were delivered of which some were in the log before";
    ProducerAnsweredAtOnce: "a producer's request was answered by what was delivered before";
    ProducerBeginsEpoch: "a producer began a newer epoch";
    ProducerOfOldEpoch: "records of an older epoch of a producer were refused";
    ProducerForgetsSpan: "a producer had more stretches of records than are remembered";
    // The node: catch-up and fetch.
    EntriesForgotten: "more answers came than can wait";
    EntryWaits: "a fetched entry had to wait";
    EntryWaitsForLog: "a fetched entry had to wait for the log to follow";
    EntryOutrun: "a fetched entry was delivered or received meanwhile";
    FetchedHasNoRoom: "a fetched value found no memory";
    AskedForValueHeld: "a peer fetched a value that is held undelivered";
    AskedForValueNotHeld: "a peer asked for a value that is not held";
    // The wire.
    HalfPacketCut: "a data link broke in the middle of a packet";
    HalfControlFrameCut: "a control link broke in the middle of a frame";
    ReceiveBufferFull: "the receive buffer was full";
    PacketSentInPart: "a send took only a part of a packet";
    ControlSentInPart: "a send took only a part of the control frames";
    ForwardCameBack: "a link went down before a packet was sent whole";
    FrameHeaderDamaged: "a frame with a damaged header closed a link";
    FrameBodyDamaged: "a frame with a damaged body closed a link";
    LinkClosedByPeer: "the peer closed a link";
    LinkFailed: "the connection below a link failed";
    // Peers.
    PeerUnreachable: "nobody answers at a peer's address";
    PeerSilent: "a peer took a connection and said nothing in time";
    PeerRefused: "a peer refused a handshake";
    HandshakeBroken: "a connection ended in the handshake, at its caller";
    GreetingBroken: "a connection ended in the handshake, or gave way to a newer one";
    GreetingTimedOut: "a caller did not finish its handshake in time";
    OlderLifeRefused: "a life that was over already was refused";
    ServingReplaced: "a peer's newer connection took the place of the one served";
    ServedUpToDamage: "an answer ends before an entry that is damaged here";
    AnsweredNotHeld: "a peer was told that a value is not held";
    ValueNotHeldThere: "a peer does not hold the value that was asked for";
    ValueHeldByNobody: "no peer holds the value that was asked for";
    DirectPushedOut: "too many direct messages waited for a peer";
    DirectTooOld: "a direct message waited too long and was dropped";
    PeerOwesTooLong: "a peer owed an answer for too long";
    CatchUpReachesNobody: "no peer could be reached to catch up from";
    CatchUpTrimmed: "no peer holds the entries that are needed any more";
    CheckpointMade: "a checkpoint was made durable";
    CheckpointDoubted: "checkpoints went behind which something could not be read";
    SegmentMissing: "a segment was missing below others";
    CheckpointNotMade: "a checkpoint could not be made";
    LogBeginsLater: "a log let go of its oldest";
    SweepFailed: "a file that is of no use could not be removed";
    TrimAsked: "the coordinator's retention asked for a trim";
    TrimWaitsForQuorum: "too few nodes had a checkpoint for a trim";
    StateServed: "a state was given to a peer";
    StateFetched: "a state was fetched from a peer";
    CatchUpDry: "a peer has no more entries than this node";
    CatchUpOvertaken: "the node got further by itself than what was fetched";
    CatchUpFailed: "a peer failed in the middle of a catch-up";
    CatchUpStalled: "what was fetched was not delivered in time";
    CatchUpLeftAlone: "a catch-up was asked for that is under way";
    CatchUpReplaced: "a catch-up was asked for while another one is under way";
}
