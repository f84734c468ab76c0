//! The control thread as the host of the connections to the peers: what they serve from the log,
//! and their way to the shard.

use super::Control;
use crate::mail::{Command, Place};
use crate::peers::{CommandSink, LogSource};
use chainring_ring::ids::{Claim, Instance, Order, ValueId};
use std::rc::Rc;

/// A handle on the control thread's state for [`crate::peers::Peers`].
#[derive(Clone)]
pub struct PeerHost(pub Rc<Control>);

impl LogSource for PeerHost {
    fn delivered(&self) -> Instance {
        self.0.catalog().delivered()
    }

    fn first(&self) -> Instance {
        self.0.catalog().first()
    }

    fn entry(&self, instance: Instance) -> Option<(Order, Place)> {
        self.0.catalog().entry(instance)
    }

    fn find(&self, id: ValueId) -> Option<(Order, Place)> {
        self.0.catalog().find(id)
    }

    fn claim(&self) -> Claim {
        self.0.catalog().claim()
    }

    async fn read(&self, place: Place, buffer: &mut Vec<u8>) -> bool {
        let mut frame = Vec::new();
        let found = self.0.read(place, &mut frame).await;
        if found {
            buffer.extend_from_slice(&frame);
        }
        found
    }

    async fn read_held(&self, id: ValueId, buffer: &mut Vec<u8>) -> bool {
        let mut frame = Vec::new();
        let found = self.0.read_held(id, &mut frame).await;
        if found {
            buffer.extend_from_slice(&frame);
        }
        found
    }
}

impl CommandSink for PeerHost {
    async fn send(&self, command: Command) {
        self.0.send(command).await;
    }
}
