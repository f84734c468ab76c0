//! A file system that is really full: a small one of its own under one node's log.

use crate::cluster::Cluster;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room of the small disk.
const DISK_BYTES: u64 = 64 << 20;

/// A small file system, mounted as long as this lives.
struct Mount(PathBuf);

impl Mount {
    /// None where nothing may be mounted.
    fn small(folder: &Path) -> Option<Mount> {
        let (image, point) = (folder.join("disk.img"), folder.join("disk"));
        std::fs::create_dir(&point).unwrap();
        std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let (image, at) = (image.to_str().unwrap(), point.to_str().unwrap());
        let made = run("mkfs.ext4", &["-q", "-F", image]);
        (made && run("mount", &["-o", "loop", image, at])).then(|| Mount(point))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: after a failure a node may still run on it.
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let command = Command::new(program).args(arguments).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_refuses_and_keeps_what_was_acknowledged() {
    let limits =
        [("segment_bytes", 4 << 20), ("packet_bytes", 32 << 10), ("group_bytes", 64 << 10)];
    let limits = [&limits[..], &[("record_bytes", 32 << 10), ("group_orders", 256)]].concat();
    let mut cluster = Cluster::new("disk-full", 3, "sync", &limits);
    let Some(mount) = Mount::small(&cluster.folder.join("")) else {
        return eprintln!("skipped: no small file system can be mounted here");
    };
    let log = mount.0.join("log").display().to_string();
    assert!(run("cp", &["-a", &cluster.folder.join("1/log").display().to_string(), &log]));
    let text = std::fs::read_to_string(cluster.config(1)).unwrap();
    let text = text.replace("dir = \"log\"", &format!("dir = \"{log}\""));
    std::fs::write(cluster.config(1), text).unwrap();
    cluster.start_all();

    let line = format!("{}\n", "x".repeat(999));
    let body = line.repeat(1000);
    let mut acknowledged = 0;
    let refused = loop {
        let answer = cluster.post(1, "t", body.as_bytes()).unwrap();
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 1000;
        assert!(acknowledged < 80_000, "the disk has no end");
    };
    let text = String::from_utf8(refused.body).unwrap();
    assert!(acknowledged >= 10_000 && refused.status == 503, "{acknowledged}: {text}");
    assert!(text.contains("log_full"), "{text}");
    let check = |cluster: &Cluster, node: usize| {
        let read = cluster.read_all(node, "t");
        assert_eq!(read.len(), acknowledged * line.len());
        assert!(read.chunks(line.len()).all(|record| record == line.as_bytes()));
    };
    (1..=3).for_each(|node| check(&cluster, node));
    // After a restart too, all killed at once.
    (1..=3).for_each(|node| cluster.kill(node));
    (1..=3).for_each(|node| cluster.start(node));
    (1..=3).for_each(|node| {
        cluster.await_status(node, |status| status["records"] == acknowledged);
    });
    (1..=3).for_each(|node| check(&cluster, node));
    (1..=3).for_each(|node| cluster.kill(node));
}
