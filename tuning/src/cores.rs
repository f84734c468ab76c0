//! Cores: which ones this process may use, how shards are spread over them, and pinning.
//!
//! Invariants: [`Cores`] holds at least one core, in ascending order; a thread that could not be
//! pinned is told so and runs on where it was.

/// The mask that pinning uses has so many bits; a core beyond it must not be asked for.
const CORE_MAX: usize = 1024;

/// Why a thread is not pinned, or the cores are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    /// The kernel does not say which cores there are.
    #[error(
        "the kernel does not say which cores this process may use; \
         allow sched_getaffinity, or name no core"
    )]
    Unknown,
    /// The core is not there, or not for this process.
    #[error(
        "core {core} is not to be had, this process may use {offered}; \
         name one of these, or none, or let the process use more"
    )]
    NotOffered {
        /// Which one was asked for.
        core: usize,
        /// Those that there are.
        offered: String,
    },
}

/// The cores that the calling thread may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// Asks the kernel. A thread that is pinned sees its own core alone: ask before pinning.
    ///
    /// # Errors
    /// [`CoresError::Unknown`]
    pub fn offered() -> Result<Cores, CoresError> {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        Cores::new(ids.into_iter().map(|core| core.id).collect()).ok_or(CoresError::Unknown)
    }

    /// These cores, in ascending order, each once; `None` without any.
    pub fn new(mut ids: Vec<usize>) -> Option<Cores> {
        ids.sort_unstable();
        ids.dedup();
        (!ids.is_empty()).then_some(Cores(ids))
    }

    /// Their numbers, ascending.
    pub fn ids(&self) -> &[usize] {
        &self.0
    }

    /// The core of the shard with this index, from 0: one after another, and round again when
    /// there are more shards than cores. Neither sockets nor sibling threads are looked at.
    pub fn core_for(&self, index: usize) -> usize {
        self.0[index % self.0.len()]
    }
}

/// Numbers with runs drawn together: `0-3,8`.
impl core::fmt::Display for Cores {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let runs = self.0.chunk_by(|core, next| core + 1 == *next);
        for (index, run) in runs.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [core] => write!(out, "{comma}{core}")?,
                run => write!(out, "{comma}{}-{}", run[0], run[run.len() - 1])?,
            }
        }
        Ok(())
    }
}

/// Pins the calling thread to a core. The threads that it starts later inherit that.
///
/// # Errors
/// [`CoresError`]: the thread runs on where it was.
pub fn pin(core: usize) -> Result<(), CoresError> {
    // A core outside the present mask may still be had: the kernel decides, not the mask.
    if core < CORE_MAX && core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Ok(());
    }
    let offered = Cores::offered()?.to_string();
    Err(CoresError::NotOffered { core, offered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(ids: &[usize]) -> Cores {
        Cores::new(ids.to_vec()).unwrap()
    }

    #[test]
    fn shards_are_spread_over_the_cores_that_there_are() {
        let spread = |ids: &[usize]| (0..5).map(|i| cores(ids).core_for(i)).collect::<Vec<_>>();
        assert_eq!(spread(&[0, 1]), [0, 1, 0, 1, 0]);
        assert_eq!(spread(&[6, 2, 4]), [2, 4, 6, 2, 4], "not 0 and 1: they are somebody else's");
        assert_eq!(spread(&[3]), [3; 5]);
        assert_eq!(Cores::new(Vec::new()), None);
    }

    #[test]
    fn cores_are_written_as_runs() {
        let pairs: [(&[usize], &str); 4] =
            [(&[0], "0"), (&[1, 0], "0-1"), (&[0, 2, 3, 4, 9], "0,2-4,9"), (&[5, 5, 7], "5,7")];
        for (ids, text) in pairs {
            assert_eq!(cores(ids).to_string(), text);
        }
    }

    #[test]
    fn a_pinned_thread_has_its_core_alone() {
        let offered = Cores::offered().unwrap();
        for core in offered.ids().iter().copied() {
            let seen = std::thread::spawn(move || pin(core).and_then(|()| Cores::offered()));
            assert_eq!(seen.join().unwrap(), Ok(cores(&[core])));
        }
        assert_eq!(Cores::offered().unwrap(), offered, "other threads are not moved");
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error_that_names_the_others() {
        let before = Cores::offered().unwrap();
        for core in [CORE_MAX - 1, CORE_MAX, usize::MAX] {
            let error = pin(core).unwrap_err();
            assert_eq!(error, CoresError::NotOffered { core, offered: before.to_string() });
            let text = error.to_string();
            assert!(text.contains(&format!("core {core} ")), "{text}");
        }
        assert_eq!(Cores::offered().unwrap(), before, "and the thread is where it was");
    }
}
