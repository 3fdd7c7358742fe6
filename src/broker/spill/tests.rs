//! The files of the spill directory on a simulated disk.

use std::path::Path;

use super::*;
use crate::testing::disk::SimDisk;

fn open(disk: &SimDisk) -> Arc<Spill> {
    Spill::open(SpillSettings {
        disk: Arc::new(disk.clone()),
        dir: "/spill".into(),
        queue_bytes_max: 1_000,
        total_bytes_max: 1_000,
    })
    .unwrap()
}

/// What an earlier run left is gone; nothing of it is needed.
// req: SPILL-1
#[test]
fn the_directory_is_emptied_at_the_start() {
    let disk = SimDisk::new();
    let area = open(&disk).area(QueueId(7));
    area.write(b"a page").unwrap();
    assert_eq!(disk.files().len(), 1);
    // The process ends without a word.
    std::mem::forget(area);
    open(&disk);
    assert_eq!(disk.files().len(), 0);
}

/// Files are begun when one is full, and go when their last page does, in any order of pages.
// req: SPILL-3
#[test]
fn a_file_goes_with_its_last_page() {
    let disk = SimDisk::new();
    let spill = open(&disk);
    let area = spill.area(QueueId(7));
    let page = vec![7; FILE_BYTES_MAX as usize / 4];
    let pages: Vec<_> = (0..10).map(|_| area.write(&page).unwrap()).collect();
    assert_eq!(disk.files().len(), 3);
    for extent in pages.iter().take(3) {
        area.release(*extent);
    }
    spill.sweep();
    assert_eq!(disk.files().len(), 3);
    area.release(pages[3]);
    assert_eq!(disk.files().len(), 3, "no file is touched under a lock");
    spill.sweep();
    assert_eq!(disk.files().len(), 2);
    assert_eq!(area.read(ReadFrom::Disk, pages[9]).unwrap(), page);
    drop(area);
    spill.sweep();
    assert_eq!(disk.files().len(), 0);
}

/// More files than may be open at once can be read all the same.
#[test]
fn files_are_opened_again() {
    let disk = SimDisk::new();
    let spill = open(&disk);
    let areas: Vec<_> = (0..2 * OPEN_FILES_MAX as u64)
        .map(|queue| {
            let area = spill.area(QueueId(queue));
            let extent = area.write(&queue.to_le_bytes()).unwrap();
            (area, extent, queue)
        })
        .collect();
    for (area, extent, queue) in &areas {
        assert_eq!(
            area.read(ReadFrom::Disk, *extent).unwrap(),
            queue.to_le_bytes()
        );
    }
    assert!(spill.open.lock().len() <= OPEN_FILES_MAX);
}

/// While writing fails it is tried now and then only, and goes on once there is room.
// req: SPILL-6
#[test]
fn failing_writes_are_tried_seldom() {
    let disk = SimDisk::new();
    let spill = open(&disk);
    let area = spill.area(QueueId(7));
    disk.set_capacity(Some(0));
    assert!(spill.may_write());
    assert!(area.write(b"a page").is_err());
    let tries = (0..2 * RETRY_EVERY).filter(|_| spill.may_write()).count();
    assert_eq!(tries, 2);
    disk.set_capacity(None);
    area.write(b"a page").unwrap();
    assert!(spill.may_write());
    spill.sweep();
    assert_eq!(
        disk.files().len(),
        1,
        "the failed page has no file of its own"
    );
    assert!(disk.files()[0].0.starts_with(Path::new("/spill")));
}
