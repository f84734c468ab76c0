//! Tests of `init` and of the directory of `up`.

use super::*;
use crate::cli::verify::tests::TestDir;

fn up_args(dir: &Path, http_port: u16) -> UpArgs {
    let durability = "sync".to_owned();
    let dir = dir.to_owned();
    UpArgs { nodes: 3, dir, durability, http_port, block: 512, development: true, new_epoch: false }
}

/// A range of ports that is free now; tests of other processes may differ.
fn free_ports() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 20_000 + (std::process::id() % 20_000) as u16;
    let fits = |base: &u16| (0..7).all(|k| free(base + k) && free(base + PEER_PORT_ABOVE + k));
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let mine = first + 10 * NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (mine..60_000).step_by(100).find(fits).unwrap()
}

fn init_args(dir: &Path, node: &[&str], nodes: Option<u8>) -> InitArgs {
    let node = node.iter().map(|text| (*text).to_owned()).collect();
    let durability = "async".to_owned();
    InitArgs { dir: dir.to_owned(), node, nodes, durability, block: 4096, development: false }
}

#[test]
fn init_writes_what_loads_and_overwrites_nothing() {
    let dir = TestDir::new("init");
    let nodes = ["1=10.0.0.1:9000,80", "2=host:9000,80", "4=[::1]:9000,80"];
    let output = init(&init_args(&dir.0, &nodes, None)).unwrap();
    assert_eq!(output.json["files"].as_array().unwrap().len(), 3);
    let load = |id: u8| Config::load(&dir.0.join(id.to_string()).join(CONFIG_FILE)).unwrap();
    let config = load(4);
    assert_eq!(config.member().http, "[::1]:80");
    assert_eq!(config.node.dir, dir.0.join("4/log"));
    assert_eq!((config.cluster.block, config.cluster.durability), (4096, Durability::Async));
    assert_eq!(config.config_hash(), load(1).config_hash());
    assert_ne!(config.cluster.id, ClusterId(0));
    let again = init(&init_args(&dir.0, &nodes, None)).unwrap_err();
    assert_eq!((again.exit, again.code), (Exit::NotFound, "exists"));
    let loop_dir = TestDir::new("init");
    init(&init_args(&loop_dir.0, &[], Some(7))).unwrap();
    assert!(loop_dir.0.join("7").join(CONFIG_FILE).exists());
}

#[test]
fn init_refuses_what_cannot_be() {
    let dir = TestDir::new("init");
    for nodes in [
        &["1=a:1"][..],
        &["a:1,2"],
        &["x=a:1,2"],
        &["8=a:1,2"],
        &["1=a:1,2", "1=b:1,2"],
        &["1=a:1,2", "2=a:1,3"],
        &["1=a:0,2"],
    ] {
        let failure = init(&init_args(&dir.0, nodes, None)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{nodes:?}");
    }
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0, "nothing was written");
}

#[test]
fn up_makes_its_directory_and_knows_it_again() {
    let dir = TestDir::new("up");
    let inside = dir.0.join("new");
    let port = free_ports();
    let first = prepare(&up_args(&inside, port)).unwrap();
    assert_eq!((first.configs.len(), first.new_epoch), (3, None));
    for config in &first.configs {
        let file = inside.join(config.node.id.0.to_string()).join(CONFIG_FILE);
        let written = Config::load(&file).unwrap();
        assert_eq!(written.config_hash(), config.config_hash());
        assert_eq!(written.node.dir, config.node.dir);
    }
    // HTTP may move; the nodes stay who they are.
    let moved = prepare(&up_args(&inside, port + 10)).unwrap();
    assert_eq!(moved.configs[0].cluster.id, first.configs[0].cluster.id);
    assert_eq!(moved.configs[0].config_hash(), first.configs[0].config_hash());
    assert_ne!(moved.configs[0].member().http, first.configs[0].member().http);
}

#[test]
fn up_refuses_other_options_naming_both() {
    let dir = TestDir::new("up");
    let port = free_ports();
    prepare(&up_args(&dir.0, port)).unwrap();
    type Change = fn(&mut UpArgs);
    let cases: [(Change, &str, &str); 3] = [
        (|args| args.nodes = 5, "--nodes 3", "not 5"),
        (|args| args.durability = "memory".into(), "--durability sync", "not memory"),
        (|args| args.block = 4096, "--block 512", "not 4096"),
    ];
    for (change, made, asked) in cases {
        let mut args = up_args(&dir.0, port);
        change(&mut args);
        let failure = prepare(&args).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains(made), "{}", failure.message);
        assert!(failure.message.contains(asked), "{}", failure.message);
    }
}

#[test]
fn up_refuses_a_directory_that_is_not_its_own() {
    let dir = TestDir::new("up");
    std::fs::write(dir.0.join("something"), "precious").unwrap();
    let failure = prepare(&up_args(&dir.0, free_ports())).unwrap_err();
    assert_eq!((failure.exit, failure.code), (Exit::Refused, "not_ours"));
}

#[test]
fn up_names_a_port_in_use_and_writes_nothing() {
    let dir = TestDir::new("up");
    let port = free_ports();
    let taken = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    let failure = prepare(&up_args(&dir.0, port)).unwrap_err();
    assert_eq!(failure.code, "port_in_use");
    assert!(failure.message.contains(&taken.local_addr().unwrap().to_string()));
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn a_memory_cluster_that_stopped_comes_back_under_a_new_epoch() {
    let dir = TestDir::new("up");
    let mut args = up_args(&dir.0, free_ports());
    args.durability = "memory".into();
    let first = prepare(&args).unwrap();
    let second = prepare(&args).unwrap();
    assert_eq!((first.new_epoch, second.new_epoch), (None, Some(2)));
    assert_eq!(second.configs[0].cluster.epoch, Epoch(2));
    assert_eq!(second.configs[0].cluster.id, first.configs[0].cluster.id);
    assert_ne!(second.configs[0].node.dir, first.configs[0].node.dir);
    assert!(!first.configs[0].node.dir.exists());
    assert_eq!(prepare(&args).unwrap().new_epoch, Some(3));
}
