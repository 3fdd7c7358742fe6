//! Bodies in files that are no payloads: what is left of them, and how they become payloads.

use std::io::IoSlice;

use super::*;

impl Bench {
    /// A body of two parts on its way into a file, with all of its bytes.
    fn begin_body(&self, bytes: &[u8]) -> Result<NewBodyFile, StoreError> {
        let begun = self.store.begin_body_file(SCOPE, bytes.len() as u64)?;
        let mut file = begun.expect("few enough");
        let (front, back) = bytes.split_at(bytes.len() / 3);
        file.write(&[IoSlice::new(front), IoSlice::new(back)])?;
        Ok(file)
    }

    fn body(&self, bytes: &[u8]) -> BodyFile {
        let begun = self.begin_body(bytes).expect("written");
        begun.finish().expect("whole")
    }

    fn reserved_bytes(&self) -> u64 {
        self.store.usage().reserved_bytes
    }
}

fn read(body: &BodyFile) -> Vec<u8> {
    let mut bytes = vec![0; body.size_bytes() as usize];
    body.read_at(&mut bytes, 0).expect("readable");
    bytes
}

/// Too many bytes, too few, and all of them leave nothing when nobody has them any more, nor does a process that was
/// killed; as long as they are there they count, and what does not fit is refused as an upload.
// req: MEMBODY-5
#[test]
fn body_in_a_file_leaves_nothing() {
    let settings = StoreSettings {
        quota_bytes: Some(400_000),
        ..settings()
    };
    let mut bench = Bench::new(settings);
    let bytes = bytes_of(300_000, 0);
    let mut long = bench.begin_body(&bytes).expect("written");
    let error = long.write(&[IoSlice::new(&[1])]);
    assert!(matches!(error, Err(StoreError::UploadTooLong { .. })));
    drop(long);
    let mut short = bench.store.begin_body_file(SCOPE, 300_000).expect("room");
    let short = short.take().expect("few enough").finish();
    assert!(matches!(short, Err(StoreError::UploadTooShort { .. })));
    assert_eq!((bench.files(), bench.reserved_bytes()), (vec![], 0));

    let body = bench.body(&bytes);
    assert_eq!(read(&body), bytes);
    assert_eq!((bench.files().len(), bench.reserved_bytes()), (1, 300_000));
    assert_eq!(bench.store.list(), []);
    let error = bench.begin_body(&bytes_of(100_001, 1));
    let expected =
        "no room for 100001 bytes in the payload store: 300000 of its quota of 400000 are in use";
    assert_eq!(error.expect_err("no room").to_string(), expected);
    drop(body);
    assert_eq!((bench.files(), bench.reserved_bytes()), (vec![], 0));

    // As kill -9 leaves it.
    std::mem::forget(bench.body(&bytes));
    assert_eq!(bench.files().len(), 1);
    bench.reopen();
    assert_eq!((bench.files(), bench.reserved_bytes()), (vec![], 0));
}

/// There are so many at once and no more, each until it is gone.
// req: MEMBODY-5
#[test]
fn bodies_in_files_are_bounded() {
    let bench = Bench::new(settings());
    let bytes = bytes_of(1_000, 0);
    let mut bodies: Vec<BodyFile> = (0..BODY_FILE_COUNT_MAX)
        .map(|_| bench.body(&bytes))
        .collect();
    let begin = || bench.store.begin_body_file(SCOPE, 1_000).expect("room");
    assert!(begin().is_none());
    bodies.pop();
    let begun = begin();
    assert!(begun.is_some() && begin().is_none());
    drop(begun);
    assert!(begin().is_some());
    // A file that cannot be made is none of them.
    bench.disk.fail_after(0);
    assert!(bench.store.begin_body_file(SCOPE, 1_000).is_err());
    assert!(begin().is_some());
}

/// A body becomes a payload in its file, and is read as before; once more, and at the same time by many, it is that
/// payload. It outlives the body and a restart.
// req: MEMBODY-6
#[test]
fn body_in_a_file_becomes_a_payload() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(700_001, 0);
    let body = bench.body(&bytes);
    assert_eq!(body.id().expect("readable"), id_of(&bytes));
    assert_eq!(bench.store.list(), [], "asking for the id stores nothing");
    std::thread::scope(|threads| {
        let store = |seed| body.store(key(seed)).expect("stored").id;
        let stored: Vec<_> = (0..8)
            .map(|seed| threads.spawn(move || store(seed)))
            .collect();
        for stored in stored {
            assert_eq!(stored.join().expect("no panic"), id_of(&bytes));
        }
    });
    let reference = body.store(key(9)).expect("there").reference;
    assert_eq!(bench.files().len(), 2, "{:?}", bench.files());
    let usage = bench.store.usage();
    assert_eq!((usage.stored_bytes, usage.reserved_bytes), (700_001, 0));
    assert_eq!(read(&body), bytes);
    drop(body);
    assert_eq!(bench.read_all(SCOPE, id_of(&bytes)).expect("there"), bytes);
    drop(reference);
    bench.reopen();
    assert_eq!(bench.read_all(SCOPE, id_of(&bytes)).expect("there"), bytes);
}

/// A body that is a payload already becomes no second one; its own file goes with it.
// req: MEMBODY-6
#[test]
fn body_that_is_stored_already_is_that_payload() {
    let bench = Bench::new(settings());
    let bytes = bytes_of(100_000, 0);
    let (first, second) = (bench.body(&bytes), bench.body(&bytes));
    let one = first.store(key(1)).expect("stored");
    let other = second.store(key(2)).expect("stored");
    assert_eq!((one.id, other.id), (id_of(&bytes), id_of(&bytes)));
    assert_eq!(bench.store.access_key(SCOPE, one.id), Some(key(1)));
    assert_eq!(bench.reserved_bytes(), 100_000);
    assert_eq!(read(&second), bytes);
    drop(second);
    assert_eq!((bench.files().len(), bench.reserved_bytes()), (2, 0));
}

/// Whichever step fails when a body is to become a payload: it can be read as before, its space counts until it is gone, and
/// tried again it becomes one, but for a sync that failed, or it does not; and nothing else is touched.
// req: MEMBODY-6
// req: STORE-18
#[test]
fn failing_step_leaves_the_body_readable() {
    let bytes = bytes_of(300_000, 0);
    let mut outcomes = [0, 0];
    for step in 0.. {
        let mut bench = Bench::new(settings());
        let other = bytes_of(1_000, 1);
        let other_id = bench.upload(SCOPE, &other).expect("stored").id;
        let body = bench.body(&bytes);
        bench.disk.fail_after(step);
        let outcome = body.store(key(1));
        let was_reached = bench.disk.fail_never();
        assert_eq!(outcome.is_err(), was_reached, "step {step}");
        assert_eq!(read(&body), bytes);
        if !was_reached {
            break;
        }
        assert!(bench.read_all(SCOPE, id_of(&bytes)).is_err());
        assert_eq!(bench.reserved_bytes(), 300_000, "step {step}");
        let again = body.store(key(1));
        assert_eq!(read(&body), bytes);
        let is_stored = again.is_ok();
        let text = again.map_or_else(|error| error.to_string(), |_| String::new());
        let is_sync_failed = text.ends_with("an earlier sync of it failed");
        assert_eq!(
            is_sync_failed,
            step == 0,
            "the body's own sync comes first: {text}"
        );
        outcomes[usize::from(is_stored)] += 1;
        drop((body, outcome));
        assert_eq!(bench.reserved_bytes(), 0);
        for _ in 0..2 {
            let found = bench.read_all(SCOPE, id_of(&bytes)).is_ok();
            assert_eq!(found, is_stored, "step {step}");
            assert_eq!(bench.read_all(SCOPE, other_id).expect("there"), other);
            let expected_count = if is_stored { 4 } else { 2 };
            assert_eq!(bench.files().len(), expected_count, "step {step}");
            bench.reopen();
        }
    }
    let [failed_count, stored_count] = outcomes;
    assert!(failed_count >= 2 && stored_count >= 4, "{outcomes:?}");
}
