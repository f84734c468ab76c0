//! Where and when a figure was taken, and of what: a figure without that is worth nothing.
//!
//! Invariant: what cannot be found out is `unknown`, never guessed.

use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const UNKNOWN: &str = "unknown";

/// Machine, kernel, build and date.
#[derive(Clone, Debug)]
pub struct Place {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Of the checkout that this was built in, as it is now; `-dirty` if it has changes.
    pub commit: String,
    /// `release`, or `dev`: then the figures are not those of the product.
    pub profile: &'static str,
    /// UTC, to the second.
    pub date: String,
}

impl Place {
    /// Here and now.
    pub fn here() -> Place {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Place {
            cpu: cpu(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: known(read("/proc/sys/kernel/osrelease").trim()),
            commit: commit(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
            date: date(now),
        }
    }

    /// Its keys, for the result's object.
    pub fn json(&self) -> Value {
        json!({
            "machine": { "cpu": self.cpu, "cores": self.cores },
            "kernel": self.kernel,
            "commit": self.commit,
            "profile": self.profile,
            "date": self.date,
        })
    }
}

fn known(text: &str) -> String {
    if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() }
}

/// The first processor's name; not every architecture has one.
fn cpu(cpuinfo: &str) -> String {
    let named = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let mut names = named.filter(|(key, _)| key.trim() == "model name");
    known(names.next().map_or("", |(_, name)| name.trim()))
}

fn commit() -> String {
    let all = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(all).output();
    let found = output.ok().filter(|output| output.status.success());
    known(found.map_or(String::new(), |output| text(&output.stdout)).trim())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `2026-01-31T23:59:59Z` of seconds since 1970, in the Gregorian calendar.
fn date(seconds: u64) -> String {
    let (mut days, clock) = (seconds / 86_400, seconds % 86_400);
    let by = |year: u64, years| year.is_multiple_of(years);
    let leap = |year| by(year, 4) && (!by(year, 100) || by(year, 400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_772_323_200, "2026-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 2.5GHz\n\nmodel name\t: Other\n";
        assert_eq!(cpu(info), "Some CPU @ 2.5GHz");
        assert_eq!(cpu("processor\t: 0\nBogoMIPS\t: 50.0\n"), UNKNOWN);
        let here = Place::here();
        assert!(here.cores > 0 && here.kernel.contains('.') && !here.commit.is_empty());
    }
}
