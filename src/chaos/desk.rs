//! Where the device takes its orders, and how the power fails.
//!
//! Invariant: once the power fails nothing is begun any more, and whoever has the last word ends
//! the process: the shard's kernel where there is one, since only it knows what is under way.

use super::disk::ChaosDisk;
use super::drive::{Drive, Write};
use super::kernel::ChaosKernel;
use super::medium::RealFile;
use super::names::Names;
use super::orders::{How, Op, Order, Rules};
use super::{SOCKET, VARIABLE};
use chainring_net::uring::Uring;
use chainring_storage::SharedDisk;
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often somebody who waits for the device looks whether that is over.
const LOOK: Duration = Duration::from_millis(1);

/// How an operation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should.
    Pass,
    /// It takes a part.
    Short,
    /// It fails.
    Fail(Errno),
    /// The power fails in the middle of it.
    Dark,
    /// There is no power: nothing is done.
    Dead,
}

#[derive(Debug)]
struct Shared {
    drive: Mutex<Drive>,
    desk: Mutex<Desk>,
    /// No power any more.
    dark: AtomicBool,
    direct: bool,
}

#[derive(Debug, Default)]
struct Desk {
    rules: Rules,
    /// A shard's kernel is there.
    kernel: bool,
    /// Who ordered the cut.
    asker: Option<UnixStream>,
    /// When the last write of a slow disk is done.
    busy_until: Option<Instant>,
}

/// The device of one node; clones are the same device.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<Shared>,
}

impl Device {
    /// The device below the store in `dir`. Orders of [`VARIABLE`] are in force when it returns.
    ///
    /// # Errors
    /// What the system says; an order that is not understood.
    pub fn start(dir: &Path, development: bool) -> io::Result<Device> {
        Names::sweep(dir)?;
        let shared = Shared {
            drive: Mutex::new(Drive::new(std::process::id().into())),
            desk: Mutex::default(),
            dark: AtomicBool::new(false),
            direct: !development,
        };
        let device = Device { shared: Arc::new(shared) };
        for order in std::env::var(VARIABLE).unwrap_or_default().split(';') {
            if !order.trim().is_empty() {
                device.take(order, None).map_err(io::Error::other)?;
            }
        }
        device.listen(dir.join(SOCKET))?;
        Ok(device)
    }

    /// The file system behind it.
    pub fn disk(&self) -> SharedDisk {
        Arc::new(ChaosDisk { device: self.clone() })
    }

    /// A kernel for the shard behind it.
    pub fn kernel(&self, uring: Uring) -> ChaosKernel {
        self.desk().kernel = true;
        ChaosKernel::new(self.clone(), uring)
    }

    fn listen(&self, path: PathBuf) -> io::Result<()> {
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let device = self.clone();
        std::thread::Builder::new().name("chaos".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines();
                while let Some(Ok(line)) = lines.next() {
                    let answer = match device.take(&line, stream.try_clone().ok()) {
                        Ok(answer) => answer,
                        Err(wrong) => format!("error: {wrong}"),
                    };
                    let _ = writeln!(&stream, "{answer}");
                }
            }
        })?;
        Ok(())
    }

    /// Carries out an order; the answer to it.
    fn take(&self, line: &str, asker: Option<UnixStream>) -> Result<String, String> {
        let mut desk = self.desk();
        match Order::parse(line)? {
            Order::Cut { seed, after } => {
                desk.rules.cut_after(seed, after);
                desk.asker = asker;
                if after == 0 {
                    let kernel = desk.kernel;
                    self.shared.dark.store(true, Ordering::SeqCst);
                    drop(desk);
                    if !kernel {
                        self.cut(Vec::new());
                    }
                    // The kernel has the last word.
                    std::thread::park();
                }
            }
            Order::Fail(rule) => desk.rules.add(rule),
            Order::Calm => {
                desk.rules.clear();
                desk.busy_until = None;
            }
            Order::Hits => return Ok(format!("hits {}", desk.rules.hits())),
            Order::Plant(name) => plant(&name)?,
        }
        Ok("ok".to_owned())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.shared.desk.lock().expect("nobody panics while holding it")
    }

    pub(super) fn drive(&self) -> MutexGuard<'_, Drive> {
        self.shared.drive.lock().expect("nobody panics while holding it")
    }

    pub(super) fn is_dark(&self) -> bool {
        self.shared.dark.load(Ordering::SeqCst)
    }

    /// A file of the disk below.
    pub(super) fn open(&self, path: &Path) -> io::Result<RealFile> {
        RealFile::open(path, self.shared.direct)
    }

    /// How an operation that blocks goes on; it may take its time.
    pub(super) fn begin(&self, op: Op, path: &Path, bytes: u64) -> Verdict {
        let (verdict, until) = self.judge(op, path, bytes);
        loop {
            match until {
                _ if self.is_dark() => return Verdict::Dead,
                Some(Until::Time(due)) if Instant::now() >= due => return verdict,
                Some(Until::Calm) if self.desk().rules.is_clear() => return verdict,
                Some(_) => std::thread::sleep(LOOK),
                None => return verdict,
            }
        }
    }

    /// How an operation goes on, and what it waits for.
    pub(super) fn judge(&self, op: Op, path: &Path, bytes: u64) -> (Verdict, Option<Until>) {
        let mut desk = self.desk();
        if self.is_dark() {
            return (Verdict::Dead, None);
        }
        if desk.rules.strike(op) {
            return (Verdict::Dark, None);
        }
        let now = Instant::now();
        let verdict = match desk.rules.meet(op, path) {
            None => return (Verdict::Pass, None),
            Some(How::Error(errno)) => return (Verdict::Fail(errno), None),
            Some(How::Short) => return (Verdict::Short, None),
            Some(How::Hang) => Until::Calm,
            Some(How::Slow(time)) => Until::Time(now + time),
            Some(How::Rate(rate)) => {
                let free = desk.busy_until.map_or(now, |until| until.max(now));
                let due = free + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
                desk.busy_until = Some(due);
                Until::Time(due)
            }
        };
        (Verdict::Pass, Some(verdict))
    }

    /// Whether what hangs goes on.
    pub(super) fn is_calm(&self) -> bool {
        self.desk().rules.is_clear()
    }

    /// The power failed in the middle of an operation whose part is done. The shard's kernel ends
    /// the process, or, where there is none, this.
    pub(super) fn darken(&self) {
        let desk = self.desk();
        self.shared.dark.store(true, Ordering::SeqCst);
        let kernel = desk.kernel;
        drop(desk);
        if !kernel {
            self.cut(Vec::new());
        }
    }

    /// The shard's kernel is gone.
    pub(super) fn without_kernel(&self) {
        self.desk().kernel = false;
    }

    /// Leaves what a power failure leaves, tells who asked for it, and ends the process.
    pub(super) fn cut(&self, writes: Vec<Write>) -> ! {
        let mut drive = self.drive();
        let mut desk = self.desk();
        let answer = match drive.power_fails(desk.rules.seed(), writes) {
            Ok(altered) => format!("cut {altered}"),
            Err(error) => format!("error: {error}"),
        };
        eprintln!("chainring: chaos: the power fails: {answer}");
        if let Some(mut asker) = desk.asker.take() {
            let _ = writeln!(asker, "{answer}");
        }
        loop {
            let _ = kill_process(getpid(), Signal::KILL);
            std::thread::sleep(LOOK);
        }
    }
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// A moment.
    Time(Instant),
    /// That there are no rules.
    Calm,
}

#[cfg(feature = "mutants")]
fn plant(name: &str) -> Result<(), String> {
    let mutant = crate::sim::mutants::named(name).ok_or_else(|| format!("no mutant: {name:?}"))?;
    chainring_ring::mutants::plant(Some(mutant));
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn plant(name: &str) -> Result<(), String> {
    Err(format!("{name} needs a build with the feature mutants"))
}
