//! Mailboxes (skeleton).
#![allow(dead_code)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
/// Writing end.
pub struct Sender<T>(Arc<T>);
/// Reading end.
pub struct Receiver<T>(Arc<T>);
/// A bounded mailbox of one writer and one reader.
pub fn channel<T>(_capacity: usize) -> (Sender<T>, Receiver<T>) {
    todo!()
}
impl<T> Sender<T> {
    /// Puts a letter in, or gives it back when full. Call [`Waker::wake`] after.
    ///
    /// # Errors
    /// The letter, when full.
    pub fn try_send(&mut self, _letter: T) -> Result<(), T> {
        todo!()
    }
}
impl<T> Receiver<T> {
    /// Takes the oldest letter.
    pub fn try_recv(&mut self) -> Option<T> {
        todo!()
    }
}
/// Wakes a thread that blocks on its eventfd; cheap while it does not. Clone freely.
#[derive(Clone)]
pub struct Waker(Arc<()>);
impl Waker {
    /// A waker of a thread that is awake.
    ///
    /// # Errors
    /// The kernel's, if there is no eventfd to be had.
    pub fn new() -> std::io::Result<Waker> {
        todo!()
    }
    /// Any thread: there is mail.
    pub fn wake(&self) {
        todo!()
    }
    /// Sleeper: takes the "there is mail" mark.
    pub fn take(&self) -> bool {
        todo!()
    }
    /// Sleeper: true if it may block on the eventfd now, false if there is mail already.
    pub fn prepare_sleep(&self) -> bool {
        todo!()
    }
    /// Sleeper: awake again; empties the eventfd.
    pub fn awake(&self) {
        todo!()
    }
    /// The eventfd, for a poll or a reactor (nonblocking).
    pub fn fd(&self) -> BorrowedFd<'_> {
        let _ = &self.0;
        todo!()
    }
}
