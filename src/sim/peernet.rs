//! The network and the clock below a simulated node's connections to its peers.
//!
//! Invariants: time is the agenda's; whoever waits leaves a waker, and whatever was waited for is
//! dropped with the life of the node.

use crate::peers::{Net, Stream};
use crate::sim::agenda::{Agenda, What};
use crate::sim::kernel::{Handle, Life, Link};
use crate::sim::lan::{Dial, Lan};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Timers of one life of a node: those that somebody waits for.
#[derive(Default)]
pub struct Timers {
    next: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
}

impl Timers {
    /// A timer fires. False if nobody waits for it any more.
    pub fn fire(&self, timer: u64) -> bool {
        let fired = self.waiting.borrow_mut().remove(&timer);
        if let Some(Some(waker)) = &fired {
            waker.wake_by_ref();
        }
        fired.is_some()
    }
}

/// Takes its timer away when nobody waits any more.
struct Timer<'a>(&'a Timers, u64);

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.0.waiting.borrow_mut().remove(&self.1);
    }
}

/// A node's network and clock.
pub struct SimNet {
    lan: Rc<RefCell<Lan>>,
    agenda: Rc<RefCell<Agenda>>,
    timers: Rc<Timers>,
    life: Life,
}

impl SimNet {
    /// Of one life of a node.
    pub fn new(
        lan: &Rc<RefCell<Lan>>,
        agenda: &Rc<RefCell<Agenda>>,
        timers: &Rc<Timers>,
        life: Life,
    ) -> SimNet {
        let (lan, agenda, timers) = (Rc::clone(lan), Rc::clone(agenda), Rc::clone(timers));
        SimNet { lan, agenda, timers, life }
    }
}

/// A connection of the control thread.
pub struct SimStream {
    lan: Rc<RefCell<Lan>>,
    link: Link,
}

impl SimStream {
    fn new(lan: &Rc<RefCell<Lan>>, index: u32, side: u8) -> SimStream {
        SimStream { lan: Rc::clone(lan), link: Link::new(lan, index, side) }
    }
}

/// Node number of an address that [`crate::sim::plan`] made.
fn node_of(address: &str) -> u8 {
    let host = address.split(':').next().unwrap_or_default();
    let last = host.rsplit('.').next().and_then(|last| last.parse::<u8>().ok());
    last.map_or(0, |last| last - 1)
}

impl Net for SimNet {
    type Stream = SimStream;
    type Handle = Handle;

    async fn connect(&self, address: &str) -> io::Result<SimStream> {
        let index = self.lan.borrow_mut().dial(self.life.node, node_of(address));
        let stream = SimStream::new(&self.lan, index, 0);
        let state =
            poll_fn(|context| match self.lan.borrow_mut().dial_state(index, context.waker()) {
                Dial::Pending => Poll::Pending,
                state => Poll::Ready(state),
            });
        match state.await {
            Dial::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
            // As a network that swallows what it gets: the caller has its own patience.
            Dial::Unreachable => std::future::pending().await,
            _ => Ok(stream),
        }
    }

    async fn accept(&self) -> io::Result<SimStream> {
        let index = poll_fn(|context| {
            let accepted = self.lan.borrow_mut().accept(self.life.node, context.waker());
            accepted.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        Ok(SimStream::new(&self.lan, index, 1))
    }

    fn release(&self, stream: SimStream) -> io::Result<Handle> {
        Ok(Handle::Link(stream.link))
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.agenda.borrow().now())
    }

    async fn pause(&self, time: Duration) {
        let number = self.timers.next.replace(self.timers.next.get() + 1);
        let timer = Timer(&self.timers, number);
        self.timers.waiting.borrow_mut().insert(number, None);
        let Life { node, number: life } = self.life;
        let at = self.agenda.borrow().now() + time.as_micros() as u64;
        self.agenda.borrow_mut().put(at, What::Timer { node, life, timer: number });
        poll_fn(|context| match timer.0.waiting.borrow_mut().get_mut(&number) {
            Some(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl Stream for SimStream {
    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let Link { index, side, .. } = self.link;
        poll_fn(|context| {
            let mut lan = self.lan.borrow_mut();
            match lan.receive(index, side, bytes) {
                Some(Ok(count)) => Poll::Ready(Ok(count)),
                Some(Err(errno)) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
                None => {
                    lan.wait_readable(index, side, context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Link { index, side, .. } = self.link;
        poll_fn(|context| {
            let mut lan = self.lan.borrow_mut();
            match lan.send(index, side, bytes) {
                Ok(0) => {
                    lan.wait_writable(index, side, context.waker());
                    Poll::Pending
                }
                Ok(count) => Poll::Ready(Ok(count)),
                Err(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            }
        })
        .await
    }

    fn tune(&self) -> io::Result<()> {
        Ok(())
    }

    fn end_unheard(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) {
        self.lan.borrow_mut().shutdown_write(self.link.index, self.link.side);
    }
}
