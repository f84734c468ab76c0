//! The configuration file.

use crate::{Target, mutate};
use chainring::config::{ARENA_BYTES_MAX, Config, ConfigError};

/// Any text.
pub const CONFIG: Target = Target {
    name: "config",
    run,
    seeds: || vec![text().into_bytes(), SMALL.as_bytes().to_vec()],
    repair: mutate::as_is,
    words: &[
        b"[limits]\n",
        b"[node]\n",
        b"[cluster]\n",
        b"segment_bytes = ",
        b"http_body_bytes = 1000\n",
        b"18446744073709551615",
        b"9223372036854775807",
        b"4294967295",
        b"-1",
        b"[[",
        b"{ ",
        b" }",
        b"\"\"\"",
        b"[",
        b"]",
        b"\\u0000",
        b"inf",
        b"1979-05-27",
        b"\n",
        b" = ",
    ],
    bytes_max: 4096,
    memory_max: 1 << 20,
};

const SMALL: &str = "[cluster]
id = \"0abc\"
epoch = 1
durability = \"sync\"
block = 512
nodes = [{ id = 1, address = \"127.0.0.1:9001\", http = \"[::1]:8081\" }]
[node]
id = 1
dir = \"log\"
";

/// As `init` writes it, without the comments.
fn text() -> String {
    let config = Config::parse(SMALL).expect("the sample is good");
    let text = config.to_toml();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

fn run(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let result = Config::parse(&text);
    match &result {
        Ok(config) => {
            let written = config.to_toml();
            let again = Config::parse(&written);
            assert_eq!(again.ok().as_ref(), Some(config), "{written}");
            // What follows from the limits: within what the checks promise.
            assert!(config.arena_bytes() <= ARENA_BYTES_MAX);
            assert!(config.receive_bytes().is_power_of_two());
            assert!(config.packet_max().is_multiple_of(config.cluster.block));
            assert!(16 * config.group_max() <= u64::from(config.limits.segment_bytes));
            let _ = config.config_hash();
            assert_eq!(config.member().id, config.node.id);
        }
        Err(error) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            if let ConfigError::Syntax { line, .. } | ConfigError::UnknownKey { line, .. } = error {
                assert!(*line <= lines);
            }
            assert!(error.to_string().len() < 4 * text.len() + 1000, "{error}");
        }
    }
    result.is_ok()
}
