//! The handshake: hello, welcome and refusal, before anybody knows who calls.

use super::{BALLOT, CLUSTER, EPOCH};
use crate::{Target, mutate};
use chainring_net::hello::{
    HELLO_BYTES, Held, Hello, HelloError, Identity, Message, PROTOCOL, Purpose, Refusal, Resume,
    TEXT_BYTES_MAX, Welcome, check, check_life, check_welcome,
};
use chainring_ring::codec::POSITION_MAX;
use chainring_ring::ids::{
    Durability, Incarnation, Instance, NODES_MAX, NodeId, Sequence, Session,
};

/// Any frame of the handshake.
pub const HELLO: Target = Target {
    name: "hello",
    run,
    seeds,
    repair: |bytes, random| mutate::fixed(bytes, HELLO_BYTES, random),
    words: &[],
    bytes_max: HELLO_BYTES,
    memory_max: 16 << 10,
};

fn run(bytes: &[u8]) -> bool {
    let mut frame = [0; HELLO_BYTES];
    let length = bytes.len().min(HELLO_BYTES);
    frame[..length].copy_from_slice(&bytes[..length]);
    let message = match Message::decode(&frame) {
        Ok(message) => message,
        Err(error) => {
            say(&error);
            return false;
        }
    };
    let ours = identity(1);
    let again = |message: &Message| {
        let by = match message {
            Message::Hello(hello) => hello.identity,
            Message::Welcome(welcome) => welcome.identity,
            Message::Refusal(_) => ours,
        };
        Message::decode(&message.encode(&by)).expect("we read what we write")
    };
    let second = again(&message);
    match &message {
        Message::Hello(hello) => {
            assert_eq!(second, message);
            match check(&ours, &hello.identity, hello.to) {
                Ok(()) => {
                    let theirs = (hello.identity.incarnation, hello.identity.session);
                    assert!((1..=NODES_MAX as u8).contains(&hello.identity.node.0));
                    let known = (Incarnation(1), Session::FIRST);
                    if let Err(error) = check_life(known, theirs) {
                        say(&error);
                    }
                }
                Err(error) => say(&error),
            }
        }
        Message::Welcome(welcome) => {
            assert_eq!(second, message);
            let called = Hello { identity: ours, purpose: Purpose::Data, to: NodeId(2) };
            match check_welcome(&called, welcome) {
                Ok(()) => assert_eq!(welcome.resume.purpose(), Purpose::Data),
                Err(error) => say(&error),
            }
            check_resume(&welcome.resume);
        }
        // A text that is not UTF-8 is longer when it was read, and cut when it is written.
        Message::Refusal(refusal) => {
            assert!(refusal.text.len() <= 3 * TEXT_BYTES_MAX);
            assert_eq!(again(&second), second);
        }
    }
    true
}

fn check_resume(resume: &Resume) {
    match resume {
        Resume::Data { count, held } => {
            for entry in &held[..usize::from(*count)] {
                assert!((1..=NODES_MAX).contains(&usize::from(entry.origin.0)));
                assert!(entry.next.0 <= POSITION_MAX);
            }
        }
        Resume::Control { received, .. } => assert!(received.0 <= POSITION_MAX),
        Resume::Peer => {}
    }
}

/// What is refused can be said to the peer.
fn say(error: &HelloError) {
    let refusal = Refusal::from(error);
    let sent = Message::Refusal(refusal.clone()).encode(&identity(1));
    assert_eq!(Message::decode(&sent), Ok(Message::Refusal(refusal)));
}

fn identity(node: u8) -> Identity {
    Identity {
        cluster: CLUSTER,
        epoch: EPOCH,
        node: NodeId(node),
        incarnation: Incarnation(1),
        session: Session { incarnation: Incarnation(1), start: 3 },
        version: PROTOCOL,
        durability: Durability::Sync,
        block: 512,
        config_hash: 77,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let identity = identity(2);
    let session = identity.session;
    let held = |origin| Held { origin: NodeId(origin), session, next: Sequence(5) };
    let resumes = [
        Resume::data(&[held(1), held(2), held(3)]),
        Resume::Control { ballot: BALLOT, received: Instance(9) },
        Resume::Peer,
    ];
    let purposes = [Purpose::Data, Purpose::Control, Purpose::Peer];
    let hello = |purpose| Message::Hello(Hello { identity, purpose, to: NodeId(1) });
    let welcome = |resume| Message::Welcome(Welcome { identity, to: NodeId(1), resume });
    let refusal = Message::Refusal(Refusal { code: 3, text: "another cluster \u{e4}".into() });
    let all = purposes.into_iter().map(hello).chain(resumes.into_iter().map(welcome));
    all.chain([refusal]).map(|message| message.encode(&identity).to_vec()).collect()
}
