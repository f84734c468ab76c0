//! `chainring sim` in a build without planted faults.
//!
//! Invariant: whoever asks for one learns how to build with them.

use super::{LastWords, SimArgs, usage};
use crate::cli::out::{Failure, Output};
use crate::sim::swarm::Orders;

/// Nothing may be asked of mutants.
pub(super) fn asked(args: &SimArgs, _: &Orders, _: &LastWords) -> Result<Option<Output>, Failure> {
    match args.mutant.is_some() || args.mutants {
        true => Err(usage(
            "no fault is planted in this build; make one that has them: cargo build --profile sim \
             --features mutants, then target/sim/chainring sim --mutant list"
                .to_owned(),
        )),
        false => Ok(None),
    }
}

/// The fault that is planted: none.
pub(super) fn planted() -> Option<&'static str> {
    None
}
