//! A cluster of real processes of the real binary, on loopback, in a folder of its own.
//!
//! Invariants: only children started here are killed, by their handle, and every one is, at the
//! latest when the cluster is dropped; ports lie below those that the system gives out, so that a
//! node that is down finds its own again; a test that fails leaves its folder for a look; one
//! cluster at a time, since what is measured here is time.

use chainring::http::client::{self, Answer, ClientError};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The binary under test: `CHAINRING_BIN` if set, else the one built with the tests.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("CHAINRING_BIN").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_chainring").into())
}

/// Runs the command to its end.
pub fn chainring(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

/// Runs the command with `--format json`: exit code and what it printed.
pub fn json(arguments: &[&str]) -> (i32, Value) {
    let output = chainring(&[arguments, &["--format", "json"]].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code().unwrap_or(-1), value)
}

/// One cluster at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port nobody listens on, below those that outgoing connections get.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 20) as u16 * 1000;
    for _ in 0..20_000 {
        let port = 11_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// An empty folder; it goes when the test ends well.
pub struct Folder(PathBuf);

impl Folder {
    /// Beside the build's own files: temporary folders may lie in memory, where there is no
    /// direct I/O.
    pub fn new(name: &str) -> Folder {
        let name = format!("{name}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// A path in it.
    pub fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for a look: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A cluster of `node` processes.
pub struct Cluster {
    pub folder: Folder,
    pub peer_ports: Vec<u16>,
    pub http_ports: Vec<u16>,
    children: Vec<Option<Child>>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Makes the configurations, with keys of `[limits]` set as given; nothing runs yet.
    pub fn new(name: &str, nodes: usize, durability: &str, limits: &[(&str, u64)]) -> Cluster {
        let _turn = turn();
        let folder = Folder::new(name);
        let peer_ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let http_ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let dir = folder.0.display().to_string();
        let members = peer_ports.iter().zip(&http_ports).enumerate();
        let members: Vec<String> = members
            .map(|(index, (peer, http))| format!("{}=127.0.0.1:{peer},{http}", index + 1))
            .collect();
        let mut arguments = vec!["init", "--dir", &dir, "--durability", durability];
        members.iter().for_each(|member| arguments.extend(["--node", member]));
        let made = chainring(&arguments);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let children = (0..nodes).map(|_| None).collect();
        let cluster = Cluster { folder, peer_ports, http_ports, children, _turn };
        (1..=nodes).for_each(|node| {
            limits.iter().for_each(|(key, value)| cluster.set_limit(node, key, *value));
        });
        cluster
    }

    /// Nodes, running or not.
    pub fn nodes(&self) -> usize {
        self.children.len()
    }

    /// A node's configuration file.
    pub fn config(&self, node: usize) -> PathBuf {
        self.folder.join(&format!("{node}/chainring.toml"))
    }

    /// A node's directory.
    pub fn dir(&self, node: usize) -> String {
        self.folder.join(&node.to_string()).display().to_string()
    }

    /// Changes one limit of one node.
    pub fn set_limit(&self, node: usize, key: &str, value: u64) {
        let text = std::fs::read_to_string(self.config(node)).unwrap();
        let head = format!("{key} = ");
        assert!(text.lines().any(|line| line.starts_with(&head)), "no limit {key}");
        let lines = text.lines().map(|line| {
            if line.starts_with(&head) { format!("{head}{value}\n") } else { format!("{line}\n") }
        });
        std::fs::write(self.config(node), lines.collect::<String>()).unwrap();
    }

    /// Starts a node; what it says goes to a file beside its directory.
    pub fn start(&mut self, node: usize) {
        assert!(self.children[node - 1].is_none(), "node {node} runs");
        let log = || -> File {
            let path = self.folder.join(&format!("{node}.out"));
            OpenOptions::new().create(true).append(true).open(path).unwrap()
        };
        let mut command = Command::new(binary());
        command.arg("node").arg("--config").arg(self.config(node));
        let child = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap();
        self.children[node - 1] = Some(child);
    }

    /// Starts all nodes and waits until each takes appends.
    pub fn start_all(&mut self) {
        (1..=self.nodes()).for_each(|node| self.start(node));
        (1..=self.nodes()).for_each(|node| self.await_ready(node));
    }

    /// Waits until a node is ready.
    pub fn await_ready(&mut self, node: usize) {
        let ready = |answer: &Answer| answer.status == 200;
        self.await_answer(node, "/readyz", Duration::from_secs(20), ready);
    }

    /// Waits until a node answers as wanted.
    pub fn await_answer(
        &mut self,
        node: usize,
        path: &str,
        timeout: Duration,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let until = Instant::now() + timeout;
        loop {
            let answer = self.get(node, path);
            if let Ok(answer) = answer.as_ref()
                && wanted(answer)
            {
                return Answer {
                    status: answer.status,
                    headers: answer.headers.clone(),
                    body: answer.body.clone(),
                };
            }
            self.check_alive();
            if Instant::now() >= until {
                let said = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
                panic!("node {node} {path} within {timeout:?}: {said:?}\n{}", self.said(node));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a node's status is as wanted.
    pub fn await_status(&mut self, node: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let parse = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body).ok();
        let wanted = |answer: &Answer| parse(answer).is_some_and(|status| wanted(&status));
        let answer = self.await_answer(node, "/status", Duration::from_secs(20), wanted);
        parse(&answer).unwrap()
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.children[node - 1].take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends SIGTERM to a node.
    pub fn terminate(&self, node: usize) {
        let pid = self.pid(node).to_string();
        // The shell's own `kill` takes a process id that this test started.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end of a node.
    pub fn await_end(&mut self, node: usize) -> ExitStatus {
        let mut child = self.children[node - 1].take().expect("it runs");
        let until = Instant::now() + Duration::from_secs(25);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= until {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("node {node} did not end\n{}", self.said(node));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops all that run with SIGTERM; each must end well.
    pub fn stop_all(&mut self) {
        let running: Vec<usize> =
            (1..=self.nodes()).filter(|node| self.children[node - 1].is_some()).collect();
        running.iter().for_each(|node| self.terminate(*node));
        for node in running {
            let status = self.await_end(node);
            assert!(status.success(), "node {node}: {status}\n{}", self.said(node));
        }
    }

    /// Fails if a node ended by itself.
    pub fn check_alive(&mut self) {
        for index in 0..self.nodes() {
            let Some(child) = &mut self.children[index] else { continue };
            if let Some(status) = child.try_wait().unwrap() {
                panic!("node {} ended: {status}\n{}", index + 1, self.said(index + 1));
            }
        }
    }

    /// Process id of a running node.
    pub fn pid(&self, node: usize) -> u32 {
        self.children[node - 1].as_ref().expect("it runs").id()
    }

    /// Resident memory of a running node, KiB.
    pub fn resident_kib(&self, node: usize) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid(node))).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// What a node printed in all its lives.
    pub fn said(&self, node: usize) -> String {
        std::fs::read_to_string(self.folder.join(&format!("{node}.out"))).unwrap_or_default()
    }

    /// A node's URL.
    pub fn url(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}", self.http_ports[node - 1])
    }

    /// Gets a path from a node.
    pub fn get(&self, node: usize, path: &str) -> Result<Answer, ClientError> {
        client::get(&self.url(node), path, Duration::from_secs(15))
    }

    /// Appends at a node.
    pub fn post(&self, node: usize, topic: &str, body: &[u8]) -> Result<Answer, ClientError> {
        let path = format!("/v1/logs/{topic}");
        client::request(&self.url(node), "POST", &path, body, Duration::from_secs(15))
    }

    /// Appends at a node as a producer does: `producer` or `new`, epoch, sequence.
    pub fn post_as(
        &self,
        node: usize,
        topic: &str,
        stamp: (&str, u32, u64),
        body: &[u8],
    ) -> Result<Answer, ClientError> {
        let (epoch, sequence) = (stamp.1.to_string(), stamp.2.to_string());
        let headers = [
            ("Chainring-Producer", stamp.0),
            ("Chainring-Epoch", &epoch),
            ("Chainring-Sequence", &sequence),
        ];
        let (path, timeout) = (format!("/v1/logs/{topic}"), Duration::from_secs(15));
        client::request_with(&self.url(node), "POST", &path, &headers, body, timeout)
    }

    /// All records of a topic as a node has them.
    pub fn read_all(&self, node: usize, topic: &str) -> Vec<u8> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let path = format!("/v1/logs/{topic}?offset={offset}&limit=1000000");
            let answer = self.get(node, &path).unwrap();
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 200, "node {node} {path}: {text}");
            if answer.body.is_empty() {
                return all;
            }
            offset = answer.header("chainring-next-offset").unwrap().parse().unwrap();
            all.extend_from_slice(&answer.body);
        }
    }

    /// Waits until all nodes have delivered the same.
    pub fn await_equal(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let statuses: Vec<Value> =
                (1..=self.nodes()).map(|node| self.await_status(node, |_| true)).collect();
            let said = |status: &Value| {
                let readable = &status["positions"]["readable"];
                (
                    status["positions"]["delivered"].clone(),
                    readable.clone(),
                    status["digest"].clone(),
                )
            };
            let first = said(&statuses[0]);
            if first.0 == first.1 && statuses.iter().all(|status| said(status) == first) {
                return;
            }
            assert!(Instant::now() < until, "not equal: {statuses:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
