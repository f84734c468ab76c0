//! How long the disk stood still for everybody: a small synchronous write again and again beside
//! the nodes. On a machine that others use too, that time is not the nodes'.

use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A write that takes longer stands still.
const STILL: Duration = Duration::from_millis(100);

/// The probe; it ends when dropped.
pub struct DiskProbe {
    end: Arc<AtomicBool>,
    began: Instant,
    /// Microseconds of all writes that stood still.
    still_us: Arc<AtomicU64>,
    /// When the write under way began, microseconds after `began`.
    under_way: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl DiskProbe {
    /// Writes to the file at `path`.
    pub fn start(path: PathBuf) -> DiskProbe {
        let began = Instant::now();
        let end = Arc::new(AtomicBool::new(false));
        let (still_us, under_way) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let shared = (Arc::clone(&end), Arc::clone(&still_us), Arc::clone(&under_way));
        let thread = std::thread::spawn(move || {
            let (end, still_us, under_way) = shared;
            let mut file = File::create(path).unwrap();
            while !end.load(Ordering::SeqCst) {
                let at = began.elapsed();
                under_way.store(at.as_micros() as u64, Ordering::SeqCst);
                file.rewind().unwrap();
                file.write_all(&[0; 4096]).unwrap();
                file.sync_data().unwrap();
                let took = began.elapsed() - at;
                under_way.store(u64::MAX, Ordering::SeqCst);
                if took > STILL {
                    still_us.fetch_add(took.as_micros() as u64, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        DiskProbe { end, began, still_us, under_way, thread: Some(thread) }
    }

    /// For how long the disk has stood still so far.
    pub fn still(&self) -> Duration {
        let now = self.began.elapsed().as_micros() as u64;
        let open = now.saturating_sub(self.under_way.load(Ordering::SeqCst));
        let open = Some(open).filter(|open| *open > STILL.as_micros() as u64);
        Duration::from_micros(self.still_us.load(Ordering::SeqCst) + open.unwrap_or(0))
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
