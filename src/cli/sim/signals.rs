//! A signal ends a hunt in good order, so that its report is not lost.
//!
//! Invariant: the first lets what runs come to its end, the second ends the process at once.

use crate::cli::out::{Exit, Failure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use std::io::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// From now on a signal sets `ended`.
pub(super) fn listen(ended: &Arc<AtomicBool>) -> Result<(), Failure> {
    let both = || -> Result<(), Error> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds it unset.
            register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(ended))?;
            register(signal, Arc::clone(ended))?;
        }
        Ok(())
    };
    both().map_err(|error| Failure::new(Exit::Failed, "signals", error))
}
