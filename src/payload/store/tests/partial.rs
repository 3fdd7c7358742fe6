//! Payloads that come piece by piece.

use super::*;

/// Pieces come in any order, wrong ones are kept nowhere, and the last makes the payload complete.
// req: STORE-8, STORE-10
// req: STORE-25
#[test]
fn partial_payload_takes_right_pieces_only_and_becomes_complete() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(5 * PIECE + 100, 0);
    let manifest = manifest_of(&bytes);
    let partial = partial(&bench.store, &manifest);
    let mut wrong = piece_of(&manifest, &bytes, 0).1.to_vec();
    wrong[77] ^= 1;
    for index in [5, 2, 0, 4, 1] {
        let (piece, right) = piece_of(&manifest, &bytes, index);
        let not_this = if index == 5 { &wrong[..100] } else { &wrong };
        assert_eq!(
            partial.write_piece(piece, not_this).expect("ok"),
            PieceOutcome::Mismatch
        );
        assert_eq!(
            partial.write_piece(piece, right).expect("ok"),
            PieceOutcome::Stored
        );
        assert_eq!(
            partial.write_piece(piece, right).expect("ok"),
            PieceOutcome::AlreadyHeld
        );
    }
    assert_eq!(partial.held().held_count(), 5);
    let missing = partial.complete();
    assert!(
        matches!(missing, Err(StoreError::MissingPiece { piece: 3, .. })),
        "{missing:?}"
    );
    let mut buffer = vec![0; PIECE];
    partial
        .read_at(&mut buffer, 4 * PIECE as u64)
        .expect("held");
    assert_eq!(buffer, piece_of(&manifest, &bytes, 4).1);
    let reader = bench
        .store
        .open_reader(SCOPE, manifest.id())
        .expect("opens");
    for offset_bytes in [2 * PIECE + 1, 3 * PIECE, 3 * PIECE + 100] {
        let error = reader.read_at(&mut buffer, offset_bytes as u64);
        assert!(
            matches!(error, Err(StoreError::MissingPiece { piece: 3, .. })),
            "{error:?}"
        );
    }
    let file_of = |offset_bytes: usize| reader.right_file(offset_bytes as u64, PIECE as u64);
    assert!(file_of(4 * PIECE).is_some(), "held");
    assert!(file_of(2 * PIECE + 1).is_none(), "piece 3 is missing");
    let (piece, right) = piece_of(&manifest, &bytes, 3);
    partial.write_piece(piece, right).expect("ok");
    assert!(file_of(2 * PIECE + 1).is_some(), "piece 3 came");
    assert_eq!(partial.complete().expect("complete").id, manifest.id());
    partial.complete().expect("complete still");
    assert!(file_of(2 * PIECE + 1).is_some(), "of the whole file");
    reader
        .read_at(&mut buffer, 3 * PIECE as u64)
        .expect("the reader goes on");
    assert_eq!(bench.files().len(), 2, "{:?}", bench.files());
    assert_eq!(bench.store.usage().stored_bytes, bytes.len() as u64);
    drop((partial, reader));
    bench.reopen();
    assert_eq!(
        bench.read_all(SCOPE, manifest.id()).expect("readable"),
        bytes
    );
    let again = bench.store.begin_partial(SCOPE, &manifest).expect("begins");
    assert!(matches!(again, BegunPartial::Complete(_)));
    assert_eq!(
        bench.store.manifest(SCOPE, manifest.id()).expect("there"),
        manifest
    );
}

/// Of pieces in a row those that are right and missing are written, each with an outcome of its own, and what was
/// written is held again after kill -9.
// req: STORE-8, STORE-9
#[test]
fn run_of_pieces_keeps_what_is_right() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(6 * PIECE + 100, 0);
    let manifest = manifest_of(&bytes);
    let begun = partial(&bench.store, &manifest);
    let (piece, right) = piece_of(&manifest, &bytes, 4);
    begun.write_piece(piece, right).expect("ok");
    let first = manifest.geometry().piece_index(2).expect("inside");
    let mut run = bytes[2 * PIECE..].to_vec();
    run[PIECE + 5] ^= 1;
    let outcomes = begun.write_run(first, &run).expect("written");
    assert_eq!(
        outcomes,
        [
            PieceOutcome::Stored,
            PieceOutcome::Mismatch,
            PieceOutcome::AlreadyHeld,
            PieceOutcome::Stored,
            PieceOutcome::Stored,
        ]
    );
    assert_eq!(begun.held().held_count(), 4);
    let mut buffer = vec![0; PIECE + 100];
    begun.read_at(&mut buffer, 5 * PIECE as u64).expect("held");
    assert_eq!(buffer, bytes[5 * PIECE..]);
    assert!(
        begun
            .read_at(&mut buffer[..PIECE], 3 * PIECE as u64)
            .is_err()
    );
    begun.sync().expect("synced");
    let held = begun.held();
    std::mem::forget(begun);
    bench.reopen();
    let begun = partial(&bench.store, &manifest);
    assert_eq!(begun.held(), held);
    let outcomes = begun.write_run(manifest.geometry().piece_index(0).expect("inside"), &bytes);
    let mut expected = [PieceOutcome::AlreadyHeld; 7];
    for index in [0, 1, 3] {
        expected[index] = PieceOutcome::Stored;
    }
    assert_eq!(outcomes.expect("written"), expected);
    begun.complete().expect("whole");
    assert_eq!(
        bench.read_all(SCOPE, manifest.id()).expect("readable"),
        bytes
    );
}

/// After kill -9 every piece that was reported is held, synced or not.
// req: STORE-9
#[test]
fn verified_pieces_survive_kill() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(6 * PIECE, 0);
    let manifest = manifest_of(&bytes);
    let begun = partial(&bench.store, &manifest);
    for index in [0, 1, 4] {
        let (piece, right) = piece_of(&manifest, &bytes, index);
        begun.write_piece(piece, right).expect("ok");
        if index == 0 {
            begun.sync().expect("synced");
        }
    }
    let held = begun.held();
    // Nothing is dropped in order: the process is gone.
    std::mem::forget(begun);
    bench.reopen();
    let info = bench
        .store
        .info(SCOPE, manifest.id())
        .expect("known before it is begun again");
    assert_eq!(info.presence, Presence::Partial);
    assert_eq!(partial(&bench.store, &manifest).held(), held);
}

/// A piece in doubt that the power loss took is not held; one that was synced is not read again.
// req: STORE-9
#[test]
fn piece_in_doubt_is_hashed_again() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(4 * PIECE, 0);
    let manifest = manifest_of(&bytes);
    let begun = partial(&bench.store, &manifest);
    for index in 0..3 {
        let (piece, right) = piece_of(&manifest, &bytes, index);
        begun.write_piece(piece, right).expect("ok");
    }
    drop(begun);
    let path = bench.store.inner.paths.partial(Key {
        scope: SCOPE,
        id: manifest.id(),
    });
    let file = OsDisk.open(&path, OpenMode::ReadWrite).expect("there");
    file.write_at(&[0; 512], PIECE as u64 + 512)
        .expect("written");
    let have = OsDisk.open(&beside(&path, paths::HAVE_ENDING), OpenMode::ReadWrite);
    have.expect("there")
        .write_at(&[9; 3], 12)
        .expect("a torn mark");
    bench.reopen();
    let resumed = partial(&bench.store, &manifest);
    let held: Vec<u32> = resumed
        .held()
        .held(manifest.geometry())
        .map(PieceIndex::get)
        .collect();
    assert_eq!(held, [0, 2]);
}

/// A partial payload with pieces of another size is begun anew.
// req: STORE-11
#[test]
fn partial_payload_of_another_geometry_is_begun_anew() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(6 * PIECE, 0);
    let manifest = manifest_of(&bytes);
    let piece_bytes = crate::payload::PieceBytes::new(2 * PIECE as u64).expect("valid");
    let geometry = Geometry::new(bytes.len() as u64, piece_bytes).expect("valid");
    let mut hasher = PayloadHasher::new(geometry);
    hasher.update(&bytes);
    let (_, piece_hashes) = hasher.finish().expect("all bytes came");
    let other = ManifestParts {
        geometry,
        piece_hashes,
        ..manifest.parts().clone()
    };
    let other = Manifest::new(other).expect("valid");
    let begun = partial(&bench.store, &manifest);
    let (piece, right) = piece_of(&manifest, &bytes, 0);
    begun.write_piece(piece, right).expect("ok");
    let error = bench.store.begin_partial(SCOPE, &other);
    assert!(
        matches!(error, Err(StoreError::PieceSizeInUse { .. })),
        "{error:?}"
    );
    drop(begun);
    bench.reopen();
    let begun = partial(&bench.store, &other);
    assert!(begun.held().is_empty());
    assert_eq!(begun.held().piece_count(), 3);
    assert_eq!(bench.store.usage().stored_bytes, bytes.len() as u64);
}
