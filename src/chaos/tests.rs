//! The device over real files, but for the end of its process, which `tests/chaos` shows.

use super::desk::Device;
use super::drive::{Drive, Write, key_of};
use super::medium::RealFile;
use crate::sim::disk::image::Medium;
use crate::sim::random::Random;
use chainring_storage::{Access, Disk, DiskFile, FileSystem, SharedDisk};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A directory of the test's own, which goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("chainring-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn device(dir: &Dir) -> (Device, SharedDisk) {
    let device = Device::start(&dir.0, true).unwrap();
    let disk = device.disk();
    (device, disk)
}

fn order(dir: &Dir, line: &str) -> String {
    let mut stream = UnixStream::connect(dir.path(super::SOCKET)).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

fn create(disk: &dyn Disk, path: &Path) -> Box<dyn DiskFile> {
    disk.open(path, Access::Create, true).unwrap()
}

fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn the_media_are_an_array_of_bytes() {
    let dir = Dir::new("medium");
    fs::write(dir.path("a"), []).unwrap();
    let mut file = RealFile::open(&dir.path("a"), false).unwrap();
    let (mut random, mut model) = (Random::new(3), vec![0u8; 3 << 20]);
    for round in 0..200u64 {
        let at = random.below(model.len() as u64) as usize;
        let longest = if round % 20 == 0 { 2 << 20 } else { 9000 };
        let bytes = random.below(longest).min((model.len() - at) as u64) as usize;
        if round % 3 == 0 {
            model[at..at + bytes].fill(0);
            file.zero(at as u64, bytes as u64);
        } else {
            random.fill(&mut model[at..at + bytes]);
            file.write(at as u64, &model[at..at + bytes]);
        }
        let (from, length) = (at.saturating_sub(5000), 12_000.min(model.len() - at));
        let mut out = vec![1; length];
        file.read(from as u64, &mut out);
        assert!(out == model[from..from + length], "round {round}");
        assert!(file.holds(at as u64, &model[at..at + bytes]));
        let zeros = model[at..at + bytes].iter().all(|byte| *byte == 0);
        assert_eq!(file.is_zero(at as u64, bytes as u64), zeros);
    }
    file.truncate(5000);
    assert!(file.length() == 5000 && file.is_zero(5000, 1 << 20));
}

#[test]
fn what_is_not_synced_is_seen_and_not_in_the_file() {
    let dir = Dir::new("cache");
    let (_device, disk) = device(&dir);
    let file = create(&*disk, &dir.path("a"));
    file.write_all_at(&[7; 8192], 0).unwrap();
    let mut out = [0; 4096];
    file.read_exact_at(&mut out, 4096).unwrap();
    assert!(out == [7; 4096] && file.length().unwrap() == 8192);
    assert_eq!(disk.list(&dir.0).unwrap().iter().filter(|(_, length)| *length == 8192).count(), 1);
    assert!(fs::read(dir.path("a")).unwrap().is_empty());
    file.sync().unwrap();
    assert_eq!(fs::read(dir.path("a")).unwrap(), [7; 8192]);
    let durable = disk.open(&dir.path("a"), Access::WriteDurable, true).unwrap();
    durable.write_all_at(&[8; 512], 512).unwrap();
    assert_eq!(fs::read(dir.path("a")).unwrap()[512..1024], [8; 512]);
}

/// Of what was not synced, and of what is under way, any sectors are there after a power failure.
#[test]
fn a_power_failure_leaves_any_of_the_states_it_may() {
    let dir = Dir::new("power");
    let path = dir.path("a");
    let (mut cached, mut under_way) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..60 {
        fs::write(&path, [1; 8192]).unwrap();
        let mut drive = Drive::new(0);
        let key = drive.know(&path, false, true).unwrap();
        assert_eq!(key, key_of(&path).unwrap());
        drive.write(key, 0, &[2; 1024], true, false);
        drive.write(key, 1024, &[3; 1024], false, false);
        // The shard's write is in the file already, or not yet.
        let mut file = RealFile::open(&path, false).unwrap();
        if seed % 2 == 0 {
            file.write(4096, &[4; 1024]);
        }
        let (bytes, before) = (vec![4; 1024], vec![1; 1024]);
        drive.power_fails(seed, vec![Write { file: key, at: 4096, bytes, before }]).unwrap();
        let left = fs::read(&path).unwrap();
        assert!(left[..1024] == [2; 1024], "it was durable");
        assert!(left[2048..4096] == [1; 2048] && left[5120..] == [1; 3072], "nobody wrote there");
        let sectors = |from: usize, new: u8| {
            [from, from + 512].map(|at| left[at..at + 512].iter().filter(|b| **b == new).count())
        };
        cached.insert(sectors(1024, 3));
        under_way.insert(sectors(4096, 4));
    }
    for states in [cached, under_way] {
        for whole in [[0, 0], [0, 512], [512, 0], [512, 512]] {
            assert!(states.contains(&whole), "{whole:?} of {states:?}");
        }
        let torn = states.iter().flatten().any(|new| *new > 0 && *new < 512);
        assert!(torn, "{states:?}");
    }
}

/// A name is durable with its directory; of those that are not the last ones are lost, in order.
#[test]
fn names_are_durable_with_their_directory() {
    let dir = Dir::new("names");
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        for entry in fs::read_dir(&dir.0).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let (device, disk) = device(&dir);
        for (name, byte) in [("old", 1), ("other", 2)] {
            let file = create(&*disk, &dir.path(name));
            file.write_all_at(&[byte; 4096], 0).unwrap();
            file.sync().unwrap();
        }
        disk.sync_dir(&dir.0).unwrap();
        create(&*disk, &dir.path("made")).sync().unwrap();
        disk.remove(&dir.path("other")).unwrap();
        disk.rename(&dir.path("made"), &dir.path("old")).unwrap();
        assert!(disk.exists(&dir.path("old")) && !disk.exists(&dir.path("other")));
        device.drive().power_fails(seed, Vec::new()).unwrap();
        let mut names: Vec<(String, usize)> = FileSystem
            .list(&dir.0)
            .unwrap()
            .into_iter()
            .map(|(name, length)| (name.into_string().unwrap(), length as usize))
            .filter(|(name, _)| name != super::SOCKET)
            .collect();
        names.sort();
        seen.insert(names);
    }
    let state = |names: &[(&str, usize)]| -> Vec<(String, usize)> {
        names.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect()
    };
    let states = [
        state(&[("old", 0)]),
        state(&[("made", 0), ("old", 4096)]),
        state(&[("made", 0), ("old", 4096), ("other", 4096)]),
        state(&[("old", 4096), ("other", 4096)]),
    ];
    assert_eq!(seen, states.into_iter().collect());
}

#[test]
fn operations_fail_as_told() {
    let dir = Dir::new("fails");
    let (_device, disk) = device(&dir);
    let file = create(&*disk, &dir.path("a"));
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(order(&dir, "fail write:a EIO times 1"), "ok");
    assert_eq!(code(file.write_all_at(&[2; 4096], 0)), Some(5));
    assert_eq!(order(&dir, "fail write:a short times 1"), "ok");
    assert_eq!(file.write_at(&[3; 4096], 0).unwrap(), 2048);
    assert_eq!(order(&dir, "fail sync EIO times 1"), "ok");
    let held = fs::read(dir.path("a")).unwrap();
    assert_eq!(code(file.sync()), Some(5));
    file.sync().unwrap();
    assert_eq!(fs::read(dir.path("a")).unwrap(), held, "a later sync succeeds and brings nothing");
    let (a, b) = (dir.path("a"), dir.path("b"));
    type Attempt<'a> = Box<dyn Fn() -> std::io::Result<()> + 'a>;
    let attempts: [(&str, i32, Attempt<'_>); 5] = [
        ("read ENODATA", 61, Box::new(|| file.read_exact_at(&mut [0; 512], 0))),
        ("rename EIO", 5, Box::new(|| disk.rename(&a, &b))),
        ("remove:b EROFS", 30, Box::new(|| disk.remove(&b))),
        ("dir EIO", 5, Box::new(|| disk.sync_dir(&dir.0))),
        ("create ENOSPC", 28, Box::new(|| disk.open(&a, Access::Create, true).map(drop))),
    ];
    for (what, error, attempt) in attempts {
        assert_eq!(order(&dir, &format!("fail {what} times 1")), "ok");
        assert_eq!(code(attempt()), Some(error), "{what}");
        assert!(attempt().is_ok(), "{what}: once");
    }
    assert_eq!(order(&dir, "hits"), "hits 8");
    assert!(order(&dir, "fail").starts_with("error: "));
}

#[test]
fn a_slow_disk_takes_its_time_and_one_that_hangs_goes_on_when_calm() {
    let dir = Dir::new("slow");
    let (_device, disk) = device(&dir);
    let file = create(&*disk, &dir.path("a"));
    assert_eq!(order(&dir, "fail write rate 40960"), "ok");
    let began = Instant::now();
    for at in 0..2 {
        file.write_all_at(&[1; 4096], at * 4096).unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!((order(&dir, "calm"), order(&dir, "fail sync hang")), ("ok".into(), "ok".into()));
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| {
            let file = disk.open(&dir.path("a"), Access::Write, true).unwrap();
            file.sync()
        });
        while order(&dir, "hits") != "hits 3" {
            std::thread::yield_now();
        }
        assert!(!hangs.is_finished());
        assert_eq!(order(&dir, "calm"), "ok");
        hangs.join().unwrap().unwrap();
    });
}
