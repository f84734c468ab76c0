//! The tasks of a node's connections, on one thread.
//!
//! Invariants: tasks run in the order in which they were woken, and a task that is woken twice
//! before its turn runs once, so that the order of events alone decides what happens: no chance,
//! no addresses, no other threads. (Wakers are called from the reactor's thread too, hence the
//! lock.) Tasks hold what holds them; [`Tasks::close`] ends that, and nothing runs after it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Turns of tasks before whatever else runs on the thread gets its own.
const TURNS_MAX: usize = 200;

/// A task: what is left to do.
type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    /// Taken out while it has its turn.
    work: Option<Work>,
    turn: Arc<Turn>,
    waker: Waker,
}

/// Tasks, and the queue of those that were woken.
#[derive(Default)]
pub struct Tasks {
    /// By number, which is never used again.
    tasks: RefCell<BTreeMap<u64, Task>>,
    next: Cell<u64>,
    closed: Cell<bool>,
    woken: Arc<Mutex<Woken>>,
}

#[derive(Default)]
struct Woken {
    queue: VecDeque<u64>,
    /// Of [`Tasks::run`], while it has nothing to do.
    runner: Option<Waker>,
}

/// Puts its task into the queue, unless it is there.
struct Turn {
    task: u64,
    queued: AtomicBool,
    woken: Arc<Mutex<Woken>>,
}

fn lock(woken: &Mutex<Woken>) -> MutexGuard<'_, Woken> {
    // Nothing under the lock can leave the queue half changed.
    woken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = lock(&self.woken);
        woken.queue.push_back(self.task);
        let runner = woken.runner.take();
        drop(woken);
        if let Some(runner) = runner {
            runner.wake();
        }
    }
}

impl Tasks {
    /// Begins a task when its turn comes in [`Tasks::run`].
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        if self.closed.get() {
            return;
        }
        let task = self.next.replace(self.next.get() + 1);
        let (queued, woken) = (AtomicBool::new(false), Arc::clone(&self.woken));
        let turn = Arc::new(Turn { task, queued, woken });
        // Of a waker and its clone `will_wake` may be false, of two clones it is true; without
        // that every look at a bell would leave one more.
        let waker = Waker::from(Arc::clone(&turn)).clone();
        turn.wake_by_ref();
        let work = Some(Box::pin(work) as Work);
        self.tasks.borrow_mut().insert(task, Task { work, turn, waker });
    }

    /// Runs the tasks, for ever.
    pub async fn run(&self) {
        poll_fn(|context| {
            for _ in 0..TURNS_MAX {
                let Some(task) = self.next_woken(context.waker()) else { return Poll::Pending };
                self.turn(task);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Ends all tasks; what is spawned from now on never begins.
    pub fn close(&self) {
        self.closed.set(true);
        // Taken out first: what a task leaves behind may look in here.
        let ended = self.tasks.take();
        drop(ended);
    }

    fn next_woken(&self, runner: &Waker) -> Option<u64> {
        let mut woken = lock(&self.woken);
        let next = woken.queue.pop_front();
        if next.is_none() {
            woken.runner = Some(runner.clone());
        }
        next
    }

    fn turn(&self, number: u64) {
        let mut tasks = self.tasks.borrow_mut();
        // It may have ended since it was woken.
        let Some(task) = tasks.get_mut(&number) else { return };
        task.turn.queued.store(false, Ordering::Release);
        let (Some(mut work), waker) = (task.work.take(), task.waker.clone()) else { return };
        drop(tasks);
        let ended = work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.borrow_mut();
        if ended {
            tasks.remove(&number);
        } else if let Some(task) = tasks.get_mut(&number) {
            task.work = Some(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::wait::Bell;
    use futures_lite::future::{poll_once, yield_now};
    use std::rc::Rc;

    /// Polls `tasks` until nothing is woken; how often.
    fn poll(tasks: &Tasks) -> usize {
        let (mut count, mut run) = (0, Box::pin(tasks.run()));
        loop {
            count += 1;
            assert!(futures_lite::future::block_on(poll_once(&mut run)).is_none());
            if lock(&tasks.woken).queue.is_empty() {
                return count;
            }
        }
    }

    #[test]
    fn tasks_run_in_the_order_in_which_they_were_woken() {
        let (tasks, bells) = (Tasks::default(), Rc::new([(); 5].map(|_| Bell::default())));
        let (rung, log) = (Rc::new(Cell::new([0; 5])), Rc::new(RefCell::new(Vec::new())));
        for me in 0..5 {
            let (bells, rung, log) = (bells.clone(), rung.clone(), log.clone());
            tasks.spawn(async move {
                for round in 1.. {
                    bells[me].until(|| (rung.get()[me] >= round).then_some(())).await;
                    log.borrow_mut().push(me);
                }
            });
        }
        poll(&tasks);
        assert!(log.borrow().is_empty());
        let ring = |order: &[usize]| {
            for &one in order {
                let mut all = rung.get();
                all[one] += 1;
                rung.set(all);
                bells[one].ring();
            }
        };
        ring(&[3, 0, 4, 1, 2]);
        poll(&tasks);
        // Woken twice, one runs once; it finds both.
        ring(&[2, 1, 2]);
        poll(&tasks);
        assert_eq!(*log.borrow(), [3, 0, 4, 1, 2, 2, 2, 1]);
        assert!(bells.iter().all(|bell| bell.waiting() == 1), "one waker a task and bell");
    }

    #[test]
    fn a_busy_task_lets_the_others_and_the_thread_go_on() {
        let (tasks, turns) = (Tasks::default(), Rc::new(Cell::new(0)));
        for _ in 0..2 {
            let turns = turns.clone();
            tasks.spawn(async move {
                for _ in 0..TURNS_MAX {
                    turns.set(turns.get() + 1);
                    yield_now().await;
                }
            });
        }
        assert_eq!(poll(&tasks), 3);
        assert_eq!(turns.get(), 2 * TURNS_MAX);
        assert!(tasks.tasks.borrow().is_empty());
    }

    /// Also what holds the tasks themselves, and what is spawned while they end.
    #[test]
    fn closed_nothing_is_left() {
        struct Last(Rc<Tasks>, Rc<()>);
        impl Drop for Last {
            fn drop(&mut self) {
                let held = self.1.clone();
                self.0.spawn(async move { drop(held) });
            }
        }
        let (tasks, held) = (Rc::new(Tasks::default()), Rc::new(()));
        for at in 0..3 {
            let last = Last(tasks.clone(), held.clone());
            tasks.spawn(async move {
                let _last = last;
                if at == 1 {
                    _last.0.close();
                }
                std::future::pending::<()>().await;
            });
        }
        poll(&tasks);
        assert_eq!((Rc::strong_count(&tasks), Rc::strong_count(&held)), (1, 1));
    }
}
