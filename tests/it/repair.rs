//! `warren journal repair` on real files: says what is lost, changes nothing unasked, and makes a store
//! open with everything else.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};
use warren::disk::OsDisk;
use warren::journal::{
    BodyRecord, Journal, JournalError, JournalSettings, Location, Lsn, NewMessage, QueueId,
    Recovered, SEGMENT_BYTES_MIN,
};

fn open(dir: &Path, start: u8) -> Result<(Journal, Recovered), JournalError> {
    let settings = JournalSettings {
        segment_bytes: SEGMENT_BYTES_MIN,
        free_bytes_min: 0,
        seed: [start; 32],
        ..JournalSettings::default()
    };
    Journal::open(Arc::new(OsDisk), dir, settings)
}

/// A store of several segments with 60 messages in one queue, left without a clean stop.
fn store(dir: &Path) -> Vec<(Lsn, Location)> {
    let (journal, _) = open(dir, 1).expect("an empty folder");
    journal
        .put_definition(b"queue/a", Some(b"durable"))
        .expect("it is open");
    let queues = [QueueId(1)];
    let publish = |_| {
        let message = NewMessage {
            exchange: b"x",
            routing_key: b"k",
            header: b"header",
            body: BodyRecord::Inline(&[5; 200]),
            queues: &queues,
            flags: 0,
            time_unix_ms: 0,
        };
        let at = journal.append_message(&message).expect("it is open");
        journal.wait_durable(at.lsn).expect("the disk works");
        (at.lsn, at.location)
    };
    (0..60).map(publish).collect()
}

fn segment(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a segment");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a writable segment");
}

fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(["journal", "repair", "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .output()
        .expect("the program that was built")
}

fn backlog(journal: &Journal) -> Vec<Lsn> {
    let read = journal.read_backlog(QueueId(1), Lsn::ZERO, 1_000, 1 << 20);
    let messages = read.expect("a whole store").into_iter();
    messages.map(|message| message.lsn).collect()
}

/// Damage in a full segment whose footer is gone too, and in the last one: a start names the place and
/// the command; the command tells the loss, and with its flag everything else is there.
// req: JOURNAL-35 JOURNAL-9
#[test]
fn damaged_records_are_given_up_and_all_others_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("journal");
    let all = store(&dir);
    let (old, old_at) = all[3];
    let (late, late_at) = all[57];
    assert!(late_at.segment > old_at.segment + 1);
    let path = segment(&dir, old_at.segment);
    flip(&path, old_at.offset as usize + 50);
    // Without its footer the segment's records are read at the start.
    let len = fs::metadata(&path).expect("a segment").len();
    flip(&path, usize::try_from(len).unwrap() - 10);
    flip(
        &segment(&dir, late_at.segment),
        late_at.offset as usize + 50,
    );

    let refused = open(&dir, 2).expect_err("damage is not opened").to_string();
    let place = format!("{} is damaged at byte {}", path.display(), old_at.offset);
    assert!(refused.contains(&place), "{refused}");
    assert!(refused.contains("warren journal repair"), "{refused}");

    let before = fs::read(&path).expect("a segment");
    let told = run(folder.path(), &[]);
    assert_eq!(told.status.code(), Some(1));
    let text = String::from_utf8_lossy(&told.stdout);
    for lsn in [old, late] {
        assert!(text.contains(&format!("records {lsn} to {lsn}")), "{text}");
    }
    assert!(text.contains("Nothing was changed"), "{text}");
    let told = run(folder.path(), &["--json"]);
    assert_eq!(told.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&told.stdout).expect("an object");
    assert_eq!(
        (&object["damaged"], &object["changed"]),
        (&json!(true), &json!(false))
    );
    let losses = object["losses"].as_array().expect("a list").iter();
    let records: Vec<_> = losses
        .map(|loss| (&loss["first_record"], &loss["record_count"]))
        .collect();
    assert_eq!(
        records,
        [(&json!(old.0), &json!(1)), (&json!(late.0), &json!(1))]
    );
    assert_eq!(fs::read(&path).expect("a segment"), before);
    assert!(open(&dir, 2).is_err());

    let done = run(folder.path(), &["--discard-damaged-records"]);
    let text = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{text}");
    let kept = dir.join(format!("{:010}.damaged", old_at.segment));
    assert_eq!(fs::read(kept).expect("the damaged file"), before);
    let (journal, recovered) = open(&dir, 3).expect("a mended store");
    assert_eq!(recovered.definitions.len(), 1);
    let lsns = all.iter().map(|(lsn, _)| *lsn);
    let left: Vec<Lsn> = lsns.filter(|lsn| *lsn != old && *lsn != late).collect();
    assert_eq!(recovered.queues[&QueueId(1)].count, left.len() as u64);
    assert_eq!(backlog(&journal), left);
    journal.close().expect("the disk works");
}

/// A segment that is gone, and one of which nothing can be read, are lost whole; the others are there.
// req: JOURNAL-35 JOURNAL-13
#[test]
fn missing_segments_are_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("journal");
    let all = store(&dir);
    fs::remove_file(segment(&dir, 2)).expect("a segment");
    let len = fs::metadata(segment(&dir, 3)).expect("a segment").len();
    let noise = vec![0xee; usize::try_from(len).expect("a length")];
    fs::write(segment(&dir, 3), noise).expect("a writable segment");
    let refused = open(&dir, 2).expect_err("a gap is not opened").to_string();
    assert!(refused.contains("warren journal repair"), "{refused}");
    let done = run(folder.path(), &["--discard-damaged-records"]);
    let text = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{text}");
    let (journal, _) = open(&dir, 3).expect("a mended store");
    let left = all
        .iter()
        .filter(|(_, at)| at.segment != 2 && at.segment != 3);
    let left: Vec<Lsn> = left.map(|(lsn, _)| *lsn).collect();
    assert!(left.len() > 10 && left.len() < all.len());
    assert_eq!(backlog(&journal), left);
}

/// The header of the last segment: a start is refused, the command says that its records tell it, and with its
/// flag nothing is missing; when no record of it can be read either, that is said.
// req: JOURNAL-40 JOURNAL-41
#[test]
fn header_of_the_last_segment_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("journal");
    let all = store(&dir);
    let number = all.last().expect("messages").1.segment;
    let last = segment(&dir, number);
    flip(&last, 41);
    let refused = open(&dir, 2).expect_err("a damaged header").to_string();
    assert!(refused.contains("warren journal repair"), "{refused}");
    let told = run(folder.path(), &[]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&format!("{} in its header", last.display())),
        "{text}"
    );
    assert!(text.contains("lost       nothing by that"), "{text}");
    let done = run(folder.path(), &["--discard-damaged-records"]);
    assert_eq!(done.status.code(), Some(0));
    let (journal, _) = open(&dir, 3).expect("a mended store");
    assert_eq!(backlog(&journal).len(), all.len());
    // Not closed: the next start reads what is the last segment then.
    drop(journal);

    let newest = fs::read_dir(&dir).expect("a folder").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        path.extension().is_some_and(|e| e == "seg").then_some(path)
    });
    let newest = newest.max().expect("a segment");
    let len = fs::metadata(&newest).expect("a segment").len();
    fs::write(&newest, vec![0xee; usize::try_from(len).expect("a length")]).expect("writable");
    let told = run(folder.path(), &[]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(
        text.contains("all that was written behind record"),
        "{text}"
    );
    let done = run(folder.path(), &["--discard-damaged-records"]);
    assert_eq!(done.status.code(), Some(0));
    let (journal, _) = open(&dir, 4).expect("a mended store");
    assert_eq!(backlog(&journal).len(), all.len());
}

/// A store that a start would open is left alone.
// req: JOURNAL-35
#[test]
fn whole_store_is_not_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("journal");
    let all = store(&dir);
    let done = run(folder.path(), &["--discard-damaged-records"]);
    assert_eq!(done.status.code(), Some(0));
    let names = fs::read_dir(&dir).expect("a folder").map(|entry| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    });
    assert!(names.into_iter().all(|name| !name.ends_with(".damaged")));
    let (journal, _) = open(&dir, 2).expect("a whole store");
    assert_eq!(backlog(&journal).len(), all.len());
}
