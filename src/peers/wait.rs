//! Waiting on one thread: a bell, a value that comes once, and the waits between attempts.
//!
//! Invariant: everything here stays on the control thread (`Rc`, `Cell`), so that a condition
//! checked and a waker left behind cannot be separated by another thread's change.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Wakes whoever waits for a condition. Ring it after every change of what they look at.
#[derive(Debug, Default)]
pub struct Bell {
    waiting: RefCell<Vec<Waker>>,
}

impl Bell {
    /// Has every waiting task look again.
    pub fn ring(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until `look` finds something; it is asked at once and after every ring.
    pub async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        std::future::poll_fn(|context| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                self.leave(context.waker());
                Poll::Pending
            }
        })
        .await
    }

    /// Wakers left behind.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    fn leave(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    closed: bool,
    waker: Option<Waker>,
}

/// Gives the value of a [`Later`]; dropped without it, the other side gets `None`.
#[derive(Debug)]
pub struct Giver<T>(Rc<RefCell<Slot<T>>>);

/// A value that comes once.
#[derive(Debug)]
#[must_use = "nothing happens with the value unless it is awaited"]
pub struct Later<T>(Rc<RefCell<Slot<T>>>);

/// A value that is yet to come, and the means to give it.
pub fn later<T>() -> (Giver<T>, Later<T>) {
    let slot = Rc::new(RefCell::new(Slot { value: None, closed: false, waker: None }));
    (Giver(slot.clone()), Later(slot))
}

impl<T> Giver<T> {
    /// False once the other side was dropped.
    pub fn is_awaited(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Gives the value.
    pub fn give(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut slot = self.0.borrow_mut();
        slot.closed = true;
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Later<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.borrow_mut();
        if slot.value.is_some() || slot.closed {
            return Poll::Ready(slot.value.take());
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// All outcomes, in the order of `work`; they wait at the same time.
pub async fn all<T>(work: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut work: Vec<_> = work.into_iter().map(|work| (Some(Box::pin(work)), None::<T>)).collect();
    std::future::poll_fn(|context| {
        let mut ready = true;
        for (future, outcome) in &mut work {
            let Some(waiting) = future else { continue };
            match waiting.as_mut().poll(context) {
                Poll::Ready(value) => (*future, *outcome) = (None, Some(value)),
                Poll::Pending => ready = false,
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    work.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

/// Waits between attempts: 10 ms, doubling to 500 ms, with a jitter that is the same in every
/// run but differs from node to node, so that nodes that fail together do not retry together.
#[derive(Debug)]
pub struct Backoff {
    seed: u64,
    attempt: u32,
}

/// First wait between attempts.
pub const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait between attempts, but for the jitter.
pub const BACKOFF_MAX: Duration = Duration::from_millis(200);

impl Backoff {
    /// `seed` names the node and what it tries.
    pub fn new(seed: u64) -> Backoff {
        Backoff { seed, attempt: 0 }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How long to wait before the next attempt: three to five quarters of the doubled delay.
    pub fn next_delay(&mut self) -> Duration {
        let base = BACKOFF_MIN.saturating_mul(1 << self.attempt.min(16)).min(BACKOFF_MAX);
        self.attempt += 1;
        base * 3 / 4 + base * self.jitter_per_mille() / 2000
    }

    /// SplitMix64 of seed and attempt, to 0..=1000.
    fn jitter_per_mille(&self) -> u32 {
        let mut z = (self.seed << 32 | u64::from(self.attempt)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % 1001) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Net, Tcp};
    use std::cell::Cell;

    #[test]
    fn backoff_doubles_to_its_limit_and_differs_by_node() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..20).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        let (one, two) = (delays(1), delays(2));
        assert_eq!(one, delays(1));
        assert_ne!(one, two);
        for (attempt, delay) in one.iter().enumerate() {
            let base = BACKOFF_MIN.saturating_mul(1 << attempt.min(10)).min(BACKOFF_MAX);
            assert!(*delay >= base * 3 / 4 && *delay <= base * 5 / 4, "{attempt}: {delay:?}");
        }
    }

    #[test]
    fn bells_values_and_deadlines() {
        let net = Tcp::new(None).unwrap();
        async_io::block_on(async {
            let (bell, flag) = (Bell::default(), Cell::new(0));
            let ring = async {
                net.pause(Duration::from_millis(5)).await;
                bell.ring();
                net.pause(Duration::from_millis(5)).await;
                flag.set(7);
                bell.ring();
                std::future::pending().await
            };
            let wait = bell.until(|| (flag.get() > 0).then(|| flag.get()));
            assert_eq!(futures_lite::future::or(wait, ring).await, 7);

            let (giver, value) = later();
            giver.give(3);
            assert_eq!(value.await, Some(3));
            let (giver, value) = later::<u8>();
            drop(giver);
            assert_eq!(value.await, None);

            let never = std::future::pending::<u8>();
            assert_eq!(net.within(Duration::from_millis(5), never).await, None);
            let net = &net;
            let sleepy = |ms| async move {
                net.pause(Duration::from_millis(ms)).await;
                ms
            };
            assert_eq!(all([9, 1, 4].map(sleepy)).await, [9, 1, 4]);
        });
    }
}
