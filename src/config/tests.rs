//! Tests of the configuration.

use super::*;

pub(crate) fn sample(nodes: u8) -> Config {
    let member = |id: u8| Member {
        id: NodeId(id),
        address: format!("127.0.0.1:{}", 9000 + u16::from(id)),
        http: format!("127.0.0.1:{}", 8080 + u16::from(id)),
        spare: false,
    };
    Config {
        cluster: Cluster {
            id: ClusterId(0xabc),
            epoch: Epoch(1),
            durability: Durability::Sync,
            block: 512,
            nodes: (1..=nodes).map(member).collect(),
        },
        node: Node { id: NodeId(1), dir: "log".into(), development: false, core: None },
        limits: Limits::default(),
    }
}

#[test]
fn what_is_written_reads_back() {
    for nodes in 1..=7 {
        let mut config = sample(nodes);
        config.node.dir = "a \"strange\"\\dir".into();
        config.node.core = (nodes > 3).then_some(1);
        config.limits.drain_ms = 17;
        let text = config.to_toml();
        assert_eq!(Config::parse(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn limits_have_defaults() {
    let text = sample(3).to_toml();
    let (head, _) = text.split_once("[limits]").unwrap();
    assert_eq!(Config::parse(head).unwrap().limits, Limits::default());
}

#[test]
fn defaults_fit_for_every_size_of_ring() {
    for nodes in 1..=7 {
        for block in [512, 4096] {
            let mut config = sample(nodes);
            config.cluster.block = block;
            config.check().unwrap();
            assert!(config.receive_bytes().is_power_of_two());
        }
    }
}

/// Each change alone is refused, under the key that it changes.
#[test]
fn every_bad_value_is_refused_by_its_key() {
    type Change = fn(&mut Config);
    let cases: &[(&str, Change)] = &[
        ("cluster.epoch", |c| c.cluster.epoch = Epoch(0)),
        ("cluster.block", |c| c.cluster.block = 1024),
        ("cluster.nodes", |c| c.cluster.nodes.clear()),
        ("cluster.nodes.id", |c| c.cluster.nodes[2].id = NodeId(8)),
        ("cluster.nodes.id", |c| c.cluster.nodes[2].id = NodeId(0)),
        ("cluster.nodes.id", |c| c.cluster.nodes[2].id = NodeId(2)),
        ("node.id", |c| c.node.id = NodeId(5)),
        ("node.dir", |c| c.node.dir = "".into()),
        ("cluster.nodes.address", |c| c.cluster.nodes[0].address = "host".into()),
        ("cluster.nodes.address", |c| c.cluster.nodes[0].address = "host:0".into()),
        ("cluster.nodes.address", |c| c.cluster.nodes[0].address = "host:65536".into()),
        ("cluster.nodes.http", |c| c.cluster.nodes[0].http = ":80".into()),
        ("cluster.nodes.http", |c| c.cluster.nodes[0].http = "http://x:80".into()),
        ("cluster.nodes.http", |c| c.cluster.nodes[0].http = "127.0.0.1:9001".into()),
        ("limits.record_bytes", |c| c.limits.record_bytes = 1 << 30),
        ("limits.packet_bytes", |c| c.limits.packet_bytes = 512),
        ("limits.packet_bytes", |c| c.limits.packet_bytes = 512 << 10),
        ("limits.segment_bytes", |c| c.limits.segment_bytes = 1 << 20),
        ("limits.log_bytes", |c| c.limits.log_bytes = 64 << 20),
        ("limits.side_pool_bytes", |c| {
            c.limits.side_pool_bytes = c.side_pool_least() as u32 - 4096;
        }),
        ("limits.side_pool_bytes", |c| c.limits.window_bytes = 64 << 20),
        ("limits.memory_log_bytes", |c| c.limits.memory_log_bytes = 1 << 20),
        ("limits.window_bytes", |c| {
            c.limits.window_bytes = 64 << 20;
            c.limits.side_pool_bytes = 256 << 20;
        }),
        ("limits.window_instances", |c| c.limits.window_instances = 8),
        ("limits.window_instances", |c| c.limits.window_instances = 48),
        ("limits.window_instances", |c| c.limits.window_instances = 8192),
        ("limits.groups_in_flight", |c| c.limits.groups_in_flight = 1),
        ("limits.group_orders", |c| c.limits.group_orders = 4097),
        ("limits.http_memory_bytes", |c| {
            c.limits.http_answer_bytes = 1 << 10;
            c.limits.http_memory_bytes = 12 * c.packet_max() - 1;
        }),
        ("limits.append_timeout_ms", |c| c.limits.append_timeout_ms = 0),
    ];
    for (expected, change) in cases {
        let mut config = sample(3);
        change(&mut config);
        match config.check() {
            Err(ConfigError::Value { key, .. } | ConfigError::Twice { key, .. }) => {
                assert_eq!(key, *expected);
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn bad_texts_are_refused_with_their_line() {
    let text = sample(3).to_toml();
    let wrong = text.replace("epoch = 1", "epoch = \"one\"");
    let line = 1 + wrong.lines().position(|line| line.starts_with("epoch")).unwrap();
    match Config::parse(&wrong) {
        Err(ConfigError::Syntax { line: found, .. }) => assert_eq!(found, line),
        other => panic!("{other:?}"),
    }
    for (from, to) in [
        ("id = \"00000000000000000000000000000abc\"", "id = \"xyz\""),
        ("id = \"00000000000000000000000000000abc\"", "id = \"+1\""),
        ("durability = \"sync\"", "durability = \"fast\""),
    ] {
        assert!(text.contains(from));
        assert!(matches!(Config::parse(&text.replace(from, to)), Err(ConfigError::Value { .. })));
    }
    assert!(matches!(Config::load(Path::new("/nonexistent")), Err(ConfigError::Read { .. })));
}

#[test]
fn the_hash_covers_what_must_be_equal_and_nothing_else() {
    type Change = fn(&mut Config);
    let base = sample(3).config_hash();
    let equal: &[Change] = &[
        |c| c.node.id = NodeId(2),
        |c| c.node.dir = "elsewhere".into(),
        |c| c.limits.http_connections = 5,
        |c| c.cluster.nodes[0].http = "127.0.0.1:9".into(),
    ];
    let different: &[Change] = &[
        |c| c.cluster.durability = Durability::Async,
        |c| c.cluster.block = 4096,
        |c| c.cluster.nodes[0].address = "127.0.0.1:9".into(),
        |c| c.cluster.nodes[2].id = NodeId(4),
        |c| drop(c.cluster.nodes.pop()),
        |c| c.limits.record_bytes += 1,
        |c| c.limits.packet_bytes /= 2,
        |c| c.limits.window_bytes *= 2,
        |c| c.limits.window_instances /= 2,
    ];
    for change in equal {
        let mut config = sample(3);
        change(&mut config);
        assert_eq!(config.config_hash(), base);
    }
    for change in different {
        let mut config = sample(3);
        change(&mut config);
        assert_ne!(config.config_hash(), base);
    }
}
