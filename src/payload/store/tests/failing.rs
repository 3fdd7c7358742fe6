//! Disks that fail at a step, and files that are not what they were.

use super::*;

/// A sync that fails takes its pieces back: they are not held, now or later.
// req: STORE-18
#[test]
fn pieces_of_a_failed_sync_are_not_held() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(3 * PIECE, 0);
    let manifest = manifest_of(&bytes);
    let begun = partial(&bench.store, &manifest);
    let write = |index| {
        let (piece, right) = piece_of(&manifest, &bytes, index);
        begun.write_piece(piece, right)
    };
    write(0).expect("ok");
    begun.sync().expect("synced");
    write(1).expect("ok");
    bench.disk.fail_after(0);
    assert!(matches!(
        begun.sync(),
        Err(StoreError::Io { step: "sync", .. })
    ));
    bench.disk.fail_never();
    assert_eq!(begun.held().held_count(), 1);
    bench.reopen();
    assert_eq!(partial(&bench.store, &manifest).held().held_count(), 1);
}

/// An upload into a disk that fails at any one step is an error or is stored, and everything else
/// stays as it was. Each step of the upload is tried.
// req: STORE-18
#[test]
fn failing_step_of_an_upload_breaks_nothing_else() {
    let bytes = bytes_of(1_300_000, 0);
    let mut failures = 0;
    for step in 0.. {
        let mut bench = Bench::new(settings());
        let other = bytes_of(1_000, 1);
        let other_id = bench.upload(SCOPE, &other).expect("stored").id;
        bench.disk.fail_after(step);
        let outcome = bench.upload(SCOPE, &bytes);
        let was_reached = bench.disk.fail_never();
        assert_eq!(outcome.is_err(), was_reached, "step {step}");
        for _ in 0..2 {
            assert_eq!(bench.read_all(SCOPE, other_id).expect("readable"), other);
            assert_eq!(bench.read_all(SCOPE, id_of(&bytes)).is_ok(), !was_reached);
            assert_eq!(bench.store.usage().reserved_bytes, 0);
            bench.reopen();
        }
        drop(outcome);
        bench.upload(SCOPE, &bytes).expect("stored at last");
        if !was_reached {
            break;
        }
        failures += 1;
    }
    assert!(
        failures >= 9,
        "create, writes, syncs and renames were tried: {failures}"
    );
}

/// The same for the pieces and the completion of a partial payload.
// req: STORE-18
#[test]
fn failing_step_of_a_partial_payload_is_made_good_by_fetching_again() {
    let bytes = bytes_of(2 * PIECE + 9, 0);
    let manifest = manifest_of(&bytes);
    let collect = |store: &Store| -> Result<StoredPayload, StoreError> {
        let partial = match store.begin_partial(SCOPE, &manifest)? {
            BegunPartial::Complete(stored) => return Ok(stored),
            BegunPartial::Partial(partial) => partial,
        };
        for index in 0..3 {
            let (piece, right) = piece_of(&manifest, &bytes, index);
            partial.write_piece(piece, right)?;
        }
        partial.complete()
    };
    let mut failures = 0;
    for step in 0.. {
        let mut bench = Bench::new(settings());
        bench.disk.fail_after(step);
        let outcome = collect(&bench.store);
        let was_reached = bench.disk.fail_never();
        assert_eq!(outcome.is_err(), was_reached, "step {step}: {outcome:?}");
        drop(outcome);
        if step % 2 == 0 {
            bench.reopen();
        }
        collect(&bench.store).expect("complete at last");
        bench.reopen();
        assert_eq!(
            bench.read_all(SCOPE, manifest.id()).expect("readable"),
            bytes
        );
        assert_eq!(bench.files().len(), 2, "step {step}: {:?}", bench.files());
        if !was_reached {
            break;
        }
        failures += 1;
    }
    assert!(failures >= 12, "{failures}");
}

/// A file that is cut or cannot be read is an error of that payload.
// req: STORE-18
#[test]
fn short_payload_file_is_an_error_of_that_payload() {
    let bench = Bench::new(settings());
    let id = bench
        .upload(SCOPE, &bytes_of(100_000, 0))
        .expect("stored")
        .id;
    let other = bench
        .upload(SCOPE, &bytes_of(100_000, 1))
        .expect("stored")
        .id;
    let path = bench.store.inner.paths.complete(Key { scope: SCOPE, id });
    OsDisk
        .open(&path, OpenMode::ReadWrite)
        .expect("there")
        .truncate(50_000)
        .expect("cut");
    assert!(matches!(
        bench.read_all(SCOPE, id),
        Err(StoreError::Read { .. })
    ));
    assert_eq!(
        bench.read_all(SCOPE, other).expect("readable"),
        bytes_of(100_000, 1)
    );
}
