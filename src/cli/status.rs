//! `chainring status`: asks nodes what they are, and says what is wrong.

use super::StatusArgs;
use super::out::{Exit, Failure, Output, progress, table};
use crate::http::client::{self, ClientError};
use serde_json::{Value, json};
use std::time::Duration;

/// What a node answered, or why it did not.
struct Asked {
    url: String,
    answer: Result<Value, String>,
}

/// `chainring status`.
pub(super) fn status(args: &StatusArgs) -> Result<Output, Failure> {
    let timeout = Duration::from_secs(args.timeout.clamp(1, 60));
    let mut asked = ask_all(&args.cluster, timeout)?;
    if let [Asked { answer: Ok(first), .. }] = &asked[..] {
        let known = first["node"].clone();
        let others = first["members"].as_array().into_iter().flatten();
        let urls: Vec<String> = others
            .filter(|member| member["id"] != known)
            .filter_map(|member| member["http"].as_str().map(str::to_owned))
            .collect();
        asked.extend(ask_all(&urls, timeout)?);
    }
    asked.sort_by_key(|asked| {
        asked.answer.as_ref().map_or(u64::MAX, |a| a["node"].as_u64().unwrap_or(0))
    });
    if asked.iter().all(|asked| asked.answer.is_err()) {
        let lines: Vec<String> = asked.into_iter().filter_map(|asked| asked.answer.err()).collect();
        return Err(Failure::new(Exit::Unreachable, "unreachable", lines.join("; ")));
    }
    Ok(show(&asked))
}

fn ask_all(urls: &[String], timeout: Duration) -> Result<Vec<Asked>, Failure> {
    let mut asked = Vec::new();
    for url in urls {
        progress(&format!("asking {url}"));
        let answer = match client::get(url, "/status", timeout) {
            Ok(answer) if answer.status == 200 => {
                serde_json::from_slice(&answer.body).map_err(|_| format!("{url}: not a status"))
            }
            Ok(answer) => Err(format!("{url} answered {}", answer.status)),
            Err(error @ ClientError::Url { .. }) => {
                return Err(Failure::new(Exit::Usage, "usage", error));
            }
            Err(error) => Err(error.to_string()),
        };
        asked.push(Asked { url: url.clone(), answer });
    }
    Ok(asked)
}

/// All that is wrong: the nodes' own reasons, who does not answer, and what they disagree on.
fn reasons(asked: &[Asked]) -> Vec<Value> {
    let mut reasons = Vec::new();
    let mut first: Option<&Value> = None;
    for Asked { url, answer } in asked {
        let status = match answer {
            Ok(status) => status,
            Err(message) => {
                reasons.push(json!({ "url": url, "code": "unreachable", "message": message }));
                continue;
            }
        };
        for reason in status["reasons"].as_array().into_iter().flatten() {
            reasons.push(json!({
                "url": url, "node": status["node"],
                "code": reason["code"], "message": reason["message"],
            }));
        }
        let first = *first.get_or_insert(status);
        for key in ["cluster", "epoch"] {
            if first[key] != status[key] {
                let message = format!("its {key} is {}, others have {}", status[key], first[key]);
                reasons.push(json!({
                    "url": url, "node": status["node"], "code": "other_cluster", "message": message,
                }));
            }
        }
        if first["positions"]["delivered"] == status["positions"]["delivered"]
            && first["digest"] != status["digest"]
        {
            let message = "it delivered as far as another node and has another digest: run `chainring verify`";
            reasons.push(json!({
                "url": url, "node": status["node"], "code": "other_digest", "message": message,
            }));
        }
    }
    reasons
}

fn show(asked: &[Asked]) -> Output {
    let reasons = reasons(asked);
    let head = [
        "NODE",
        "STATE",
        "COORD",
        "BALLOT",
        "LAYOUT",
        "RECEIVED",
        "DURABLE",
        "DECIDED",
        "DELIVERED",
        "LAG",
        "RECORDS",
        "DISK",
        "LINK",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(asked.iter().map(row));
    let mut text = table(&rows);
    for reason in &reasons {
        let who = match reason["node"].as_u64() {
            Some(node) => format!("node {node}"),
            None => reason["url"].as_str().unwrap_or_default().to_owned(),
        };
        let message = reason["message"].as_str().unwrap_or_default();
        text.push_str(&format!("\n{who}: {message}"));
    }
    let nodes: Vec<Value> = asked
        .iter()
        .map(|Asked { url, answer }| match answer {
            Ok(status) => json!({ "url": url, "reachable": true, "status": status }),
            Err(message) => json!({ "url": url, "reachable": false, "message": message }),
        })
        .collect();
    let exit = if reasons.is_empty() { Exit::Ok } else { Exit::Degraded };
    let json = json!({ "ok": reasons.is_empty(), "reasons": reasons, "nodes": nodes });
    Output::new(text, json).ending(exit)
}

fn row(asked: &Asked) -> Vec<String> {
    let status = match &asked.answer {
        Ok(status) => status,
        Err(_) => return vec![asked.url.clone(), "unreachable".to_owned()],
    };
    let number = |value: &Value| value.as_u64().map_or("-".to_owned(), |number| number.to_string());
    let positions = &status["positions"];
    let ballot = &status["ballot"];
    let layout: Vec<String> =
        status["layout"].as_array().into_iter().flatten().map(number).collect();
    let log = &status["log"];
    let disk = match (status["durability"].as_str(), log["full"].as_bool()) {
        (Some("memory"), _) => "none".to_owned(),
        (_, Some(true)) => "full".to_owned(),
        _ => format!("{} KiB behind", log["behind_bytes"].as_u64().unwrap_or(0).div_ceil(1024)),
    };
    let links = &status["links"];
    let up = |key: &str| links[key].as_bool() == Some(true);
    let alone = status["nodes"] == 1;
    let all = ["data_in", "data_out", "control_in", "control_out"];
    let link = match all.iter().filter(|key| up(key)).count() {
        _ if alone => "alone".to_owned(),
        4 => "up".to_owned(),
        count => format!("{count} of 4"),
    };
    vec![
        number(&status["node"]),
        status["state"].as_str().unwrap_or("?").to_owned(),
        number(&status["coordinator"]),
        format!("{}.{}", number(&ballot["round"]), number(&ballot["node"])),
        layout.join(","),
        number(&positions["received"]),
        number(&positions["durable"]),
        number(&positions["decided"]),
        number(&positions["delivered"]),
        number(&status["lag"]),
        number(&status["records"]),
        disk,
        link,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A node that answers one status for ever.
    fn node(status: impl FnOnce(&str) -> Value) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let body = status(&url).to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        url
    }

    fn good(id: u8) -> Value {
        json!({
            "v": 1, "node": id, "cluster": "ab", "epoch": 1, "state": "follower", "reasons": [],
            "digest": "00", "positions": {"delivered": 5}, "links": {}, "layout": [1, 2],
        })
    }

    fn args(urls: &[&str]) -> StatusArgs {
        let cluster = urls.iter().map(|url| (*url).to_owned()).collect();
        StatusArgs { cluster, timeout: 2 }
    }

    /// A port that nobody listens on.
    fn nobody() -> String {
        format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    }

    #[test]
    fn a_good_cluster_is_shown_and_the_others_are_learnt() {
        let second = node(|_| good(2));
        let first = node(|url| {
            let mut status = good(1);
            status["members"] =
                json!([{ "id": 1, "http": url }, { "id": 2, "http": second.clone() }]);
            status
        });
        let output = status(&args(&[&first])).unwrap();
        assert_eq!(output.exit, Exit::Ok);
        assert_eq!(output.text.lines().count(), 3, "{}", output.text);
        assert_eq!(output.json["nodes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_and_ends_with_six() {
        let first = node(|_| good(1));
        let cases: [(&str, Value); 3] = [
            ("halted", json!([{ "code": "halted", "message": "m" }])),
            ("other_cluster", json!("cd")),
            ("other_digest", json!("11")),
        ];
        for (code, change) in cases {
            let second = node(|_| {
                let mut status = good(2);
                let key = match code {
                    "halted" => "reasons",
                    "other_cluster" => "cluster",
                    _ => "digest",
                };
                status[key] = change;
                status
            });
            let output = status(&args(&[&first, &second])).unwrap();
            assert_eq!(output.exit, Exit::Degraded);
            assert_eq!(output.json["reasons"][0]["code"], code);
            assert_eq!(output.json["reasons"][0]["node"], 2);
        }
        let output = status(&args(&[&first, &nobody()])).unwrap();
        assert_eq!(output.exit, Exit::Degraded);
        assert_eq!(output.json["reasons"][0]["code"], "unreachable");
    }

    #[test]
    fn nobody_answers() {
        let failure = status(&args(&[&nobody()])).unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(status(&args(&["nonsense"])).unwrap_err().exit, Exit::Usage);
    }
}
