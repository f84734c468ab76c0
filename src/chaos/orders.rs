//! What the device is told: when the power fails, and which operations fail or take their time.
//!
//! ```text
//! cut SEED [after N]                       the power fails, now or in the N-th change from now
//! fail OP[:FILE] HOW [after N] [times N]   behind N matching operations, so many times
//! calm                                     nothing fails any more, and what hangs goes on
//! hits                                     how many operations met a rule so far
//! plant MUTANT                             a fault of the node itself (feature `mutants`)
//! ```
//! OP is log, write, sync, read, open, create, rename, remove or dir (the sync of a directory),
//! FILE how a name begins; HOW is the name of an error, `short`, `slow MS`, `rate BYTES_PER_S` or
//! `hang`.
//!
//! Invariant: what is not understood is refused whole.

use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;

/// What a node does to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A write of the shard.
    Log,
    /// Any other write.
    Write,
    /// A flush of a file.
    Sync,
    /// A read.
    Read,
    /// An open of a file that is there.
    Open,
    /// An open of a new file.
    Create,
    /// A new name.
    Rename,
    /// A removal.
    Remove,
    /// A flush of a directory.
    Dir,
}

const OPS: [(&str, Op); 9] = [
    ("log", Op::Log),
    ("write", Op::Write),
    ("sync", Op::Sync),
    ("read", Op::Read),
    ("open", Op::Open),
    ("create", Op::Create),
    ("rename", Op::Rename),
    ("remove", Op::Remove),
    ("dir", Op::Dir),
];

const ERRORS: [(&str, Errno); 12] = [
    ("EIO", Errno::IO),
    ("ENOSPC", Errno::NOSPC),
    ("EDQUOT", Errno::DQUOT),
    ("EFBIG", Errno::FBIG),
    ("EROFS", Errno::ROFS),
    ("ENODATA", Errno::NODATA),
    ("ETIMEDOUT", Errno::TIMEDOUT),
    ("EILSEQ", Errno::ILSEQ),
    ("ENOLINK", Errno::NOLINK),
    ("ECANCELED", Errno::CANCELED),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
];

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// With an error; of a write any part may be done.
    Error(Errno),
    /// It takes a part and says so.
    Short,
    /// As it should, so much later.
    Slow(Duration),
    /// As it should, behind all before it at so many bytes a second.
    Rate(u64),
    /// Not at all, before the device is calm.
    Hang,
}

/// A rule: some operations do not end as they should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    op: Op,
    /// How the name of the file begins.
    file: String,
    how: How,
    /// Operations that it lets pass first.
    after: u64,
    /// Operations that it still meets.
    times: u64,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The power fails: the seed, and in which change from now; 0 at once.
    Cut { seed: u64, after: u64 },
    /// A rule more.
    Fail(Rule),
    /// No rules any more.
    Calm,
    /// How many operations met one?
    Hits,
    /// A planted fault.
    Plant(String),
}

impl Order {
    /// An order from its line.
    ///
    /// # Errors
    /// Which word is wrong.
    pub fn parse(line: &str) -> Result<Order, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let order = match words[..] {
            ["cut", seed] => Order::Cut { seed: number(seed)?, after: 0 },
            ["cut", seed, "after", after] => {
                Order::Cut { seed: number(seed)?, after: number(after)?.max(1) }
            }
            ["fail", what, ref rest @ ..] => Order::Fail(rule(what, rest)?),
            ["calm"] => Order::Calm,
            ["hits"] => Order::Hits,
            ["plant", name] => Order::Plant(name.to_owned()),
            _ => return Err(format!("no order: {line:?}")),
        };
        Ok(order)
    }
}

fn rule(what: &str, rest: &[&str]) -> Result<Rule, String> {
    let (op, file) = what.split_once(':').unwrap_or((what, ""));
    let op = OPS.iter().find(|(name, _)| *name == op);
    let (_, op) = *op.ok_or_else(|| format!("no operation: {what:?}"))?;
    let (how, mut rest) = how(rest)?;
    let (mut after, mut times) = (0, u64::MAX);
    while let [word, value, behind @ ..] = rest {
        match *word {
            "after" => after = number(value)?,
            "times" => times = number(value)?,
            _ => return Err(format!("neither after nor times: {word:?}")),
        }
        rest = behind;
    }
    match rest {
        [] => Ok(Rule { op, file: file.to_owned(), how, after, times }),
        _ => Err(format!("too much: {rest:?}")),
    }
}

fn how<'a>(words: &'a [&'a str]) -> Result<(How, &'a [&'a str]), String> {
    match words {
        ["short", rest @ ..] => Ok((How::Short, rest)),
        ["hang", rest @ ..] => Ok((How::Hang, rest)),
        ["slow", ms, rest @ ..] => Ok((How::Slow(Duration::from_millis(number(ms)?)), rest)),
        ["rate", bytes, rest @ ..] => Ok((How::Rate(number(bytes)?.max(1)), rest)),
        [name, rest @ ..] => {
            let error = ERRORS.iter().find(|(known, _)| known == name);
            Ok((How::Error(error.ok_or_else(|| format!("no error: {name:?}"))?.1), rest))
        }
        [] => Err("how?".to_owned()),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("no number: {word:?}"))
}

/// The rules in force, and when the power fails.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    hits: u64,
    /// Changes so far.
    changes: u64,
    /// Seed of the cut, and the change in which it comes.
    cut: Option<(u64, u64)>,
}

impl Rules {
    /// One more; of two that meet an operation the first counts.
    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// None any more.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// Whether there is none.
    pub fn is_clear(&self) -> bool {
        self.rules.is_empty()
    }

    /// Operations that met one.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// The power fails in the so manieth change from now.
    pub fn cut_after(&mut self, seed: u64, after: u64) {
        self.cut = Some((seed, self.changes + after));
    }

    /// What decides about everything that is not on stable media.
    pub fn seed(&self) -> u64 {
        self.cut.map_or(0, |(seed, _)| seed)
    }

    /// Counts a change. True if the power fails in it.
    pub fn strike(&mut self, op: Op) -> bool {
        self.changes += u64::from(!matches!(op, Op::Read | Op::Open));
        self.cut.is_some_and(|(_, at)| self.changes >= at)
    }

    /// How an operation ends, if not as it should.
    pub fn meet(&mut self, op: Op, path: &Path) -> Option<How> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rule = self.rules.iter_mut();
        let mut rule = rule.filter(|rule| rule.op == op && name.starts_with(&rule.file));
        let rule = rule.find(|rule| rule.times > 0)?;
        if rule.after > 0 {
            rule.after -= 1;
            return None;
        }
        rule.times -= 1;
        self.hits += 1;
        Some(rule.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_whole_or_refused() {
        let cut = |seed, after| Ok(Order::Cut { seed, after });
        assert_eq!(Order::parse("cut 7"), cut(7, 0));
        assert_eq!(Order::parse(" cut 7 after 3 "), cut(7, 3));
        assert_eq!(
            Order::parse("plant WriteNotDurable"),
            Ok(Order::Plant("WriteNotDurable".into()))
        );
        for wrong in [
            "",
            "cut",
            "cut x",
            "cut 1 after",
            "fail",
            "fail log",
            "fail disk EIO",
            "fail log EOOPS",
            "fail log slow",
            "fail log EIO again 3",
            "fail log EIO after",
            "calm now",
            "plant",
        ] {
            assert!(Order::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_rule_meets_its_operations_and_no_others() {
        let mut rules = Rules::default();
        for line in ["fail write:superblock EIO after 1 times 2", "fail write short"] {
            let Ok(Order::Fail(rule)) = Order::parse(line) else { panic!("{line}") };
            rules.add(rule);
        }
        let (superblock, segment) = (Path::new("/d/superblock"), Path::new("/d/segment-0.log"));
        let mut meet = |op, path| rules.meet(op, path);
        assert_eq!(meet(Op::Read, superblock), None);
        assert_eq!(meet(Op::Write, segment), Some(How::Short));
        assert_eq!(meet(Op::Write, superblock), None, "the first one passes");
        assert_eq!(meet(Op::Write, superblock), Some(How::Error(Errno::IO)));
        assert_eq!(meet(Op::Write, superblock), Some(How::Error(Errno::IO)));
        assert_eq!(meet(Op::Write, superblock), Some(How::Short), "that rule is used up");
        assert_eq!(rules.hits(), 4);
        rules.clear();
        assert_eq!(rules.meet(Op::Write, segment), None);
    }

    #[test]
    fn the_power_fails_in_a_change_and_in_no_read() {
        let mut rules = Rules::default();
        assert!(!rules.strike(Op::Write));
        rules.cut_after(5, 2);
        assert!(!rules.strike(Op::Write) && !rules.strike(Op::Read) && rules.strike(Op::Log));
        assert_eq!(rules.seed(), 5);
    }
}
