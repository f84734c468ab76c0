//! Tests of the parts that need no cluster.

use super::check::digest;
use super::feed::{Feed, Shared};
use super::input::{Input, SAMPLE_LINES, sample};
use super::parts::{Content, cut, too_long};
use super::room::Room;
use super::{DemoError, Load, RECORD_BYTES_MAX};
use crate::mail::TopicId;
use crate::records::{Digest, Run, RunWriter, records, runs};
use crate::source::{Filling, Source, Supply};
use std::sync::Arc;

#[test]
fn texts_are_cut_at_line_ends_and_nothing_is_lost() {
    let texts: [&[u8]; 8] = [
        b"",
        b"\n",
        b"x",
        b"\n\n\n",
        b"a\nbb\nccc\n",
        b"long line\nx",
        b"a\nlong line at the end",
        b"\n\nx",
    ];
    for text in texts {
        for count in 1..=7 {
            let ends = cut(text, count);
            assert_eq!((ends.len(), ends.last()), (count, Some(&text.len())));
            let mut last = 0;
            for end in ends {
                assert!(end >= last, "{text:?} {count}");
                let line_end = end == 0 || end == text.len() || text[end - 1] == b'\n';
                assert!(line_end, "{text:?} {count} at {end}");
                last = end;
            }
        }
    }
    let text = b"0123456\n".repeat(700);
    let ends = cut(&text, 7);
    assert!(ends.iter().zip(1..).all(|(end, part)| *end == part * 800), "{ends:?}");
}

#[test]
fn the_first_line_that_is_too_long_is_found() {
    assert_eq!(too_long(b"abc\nabcd\nabcde\n", 5), Some((9, 3)));
    assert_eq!(too_long(b"abc\nabcd\n", 5), None);
    assert_eq!(too_long(b"abc\nabcdef", 5), Some((4, 2)), "the last line has no line feed");
    assert_eq!(too_long(b"", 5), None);
}

#[test]
fn readers_give_the_same_records_every_time() {
    let text = Arc::new(b"a\n\nlast".to_vec());
    let lines = Content::Lines { text, from: 0, to: 7 };
    let random = Content::Random { seed: 5, size: 13, count: 4 };
    for (content, sum) in [(lines, (3, 7)), (random, (4, 52))] {
        let read = |from: u64| {
            let mut reader = content.reader();
            reader.skip_to(from);
            let mut all = Vec::new();
            while let Some(record) = reader.peek() {
                all.push(record.to_vec());
                reader.advance();
            }
            all
        };
        let all = read(0);
        assert_eq!((all.len() as u64, all.iter().map(Vec::len).sum::<usize>() as u64), sum);
        assert_eq!(content.sum(), sum);
        for from in 0..=all.len() {
            assert_eq!(read(from as u64), all[from..]);
        }
        assert!(all[0] != all[1] && all[1] != all[2]);
    }
}

/// Drives the sources of all nodes into one log: the digest is that of what was shipped.
#[test]
fn sources_wait_for_their_topics_and_ship_every_record_once() {
    let random = Load::Random { records: Some(1000), size: 40, time: None };
    for load in [random, Load::Sample] {
        let mut input = Input::read(&load, 3).unwrap();
        let shared = Shared::new(3, input.parts.len());
        let (mut log, mut names) = (Digest::default(), Vec::new());
        let mut ends = [0u64; 3];
        let mut feeds: Vec<Option<Feed>> =
            (0..3).map(|node| Some(Feed::new(node, &input.parts, None, &shared))).collect();
        let mut body = vec![0; 8000];
        for round in 0.. {
            if round == 5 {
                assert_eq!((shared.ready(), shared.first_us()), (3, None));
                assert_eq!(log, Digest::default(), "nothing is shipped before the sign");
                shared.go();
            }
            for node in 0..3 {
                let Some(feed) = &mut feeds[node] else { continue };
                let mut writer = RunWriter::new();
                let mut packet = Filling { body: &mut body, writer: &mut writer, records: 0 };
                let supply = feed.fill(&mut packet);
                for run in runs(&body[..writer.bytes()]) {
                    match run.unwrap() {
                        Run::Create { name, .. } => names.push(name.to_owned()),
                        Run::Records { topic, bytes, .. } => {
                            for record in records(bytes) {
                                let end = &mut ends[topic.0 as usize];
                                log.add(topic, *end, record);
                                *end += 1;
                            }
                        }
                        Run::Register { .. } => panic!("a demo has no producers"),
                    }
                }
                if supply == Supply::Exhausted {
                    feeds[node] = None;
                }
                for (id, name) in (0..).zip(&names) {
                    feeds.iter_mut().flatten().for_each(|feed| feed.topic(name, TopicId(id)));
                }
            }
            if shared.finished() == 3 {
                break;
            }
        }
        input.shipped(&shared.shipped());
        assert_eq!(digest(&input.parts, &shared), log);
        assert_eq!(ends.iter().sum::<u64>(), input.sum().unwrap().0);
        assert!(shared.first_us().is_some());
    }
}

#[test]
fn the_sample_is_the_same_every_time_and_made_of_lines() {
    let text = sample(SAMPLE_LINES);
    assert_eq!(text, sample(SAMPLE_LINES));
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count() as u64, SAMPLE_LINES);
    assert_eq!(text.last(), Some(&b'\n'));
    assert_eq!(too_long(&text, 200), None);
}

#[test]
fn an_unreadable_file_is_an_error_before_anything_is_cut() {
    let load = Load::Files(vec!["/nowhere/at/all".into()]);
    assert!(matches!(Input::read(&load, 3), Err(DemoError::Read { .. })));
}

#[test]
fn logs_have_room_for_what_is_shipped() {
    for (records, bytes) in
        [(0, 0), (1, 1), (20_000, 2 << 20), (2_000_000, 400 << 20), (40_000, 40_000 << 15)]
    {
        let room = Room::new(Some((records, bytes)), 0);
        assert!(room.disk_bytes() >= bytes + bytes / 5 + 4 * records, "{room:?}");
        assert_eq!(room.disk_bytes(), room.log_bytes, "none is made while time is taken");
        assert!((1..=6).contains(&room.ahead), "{room:?}");
    }
    let huge = Room::new(Some((1, 1 << 40)), 0);
    assert!(huge.log_bytes > huge.disk_bytes(), "the rest is made as it goes on");
    assert!(Room::new(None, 10).log_bytes > 10 << 30);
    assert!(Room::new(Some((1, u64::from(RECORD_BYTES_MAX))), 0).memory_log_bytes(7) >= 48 << 20);
}
