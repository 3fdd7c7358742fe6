//! A disk that fails at a chosen step.

use super::*;

/// The operating system's disk, which fails once at a chosen step that changes something.
#[derive(Debug)]
pub(super) struct FaultyDisk {
    steps: Arc<Steps>,
    pub(super) open_count: AtomicU64,
    pub(super) free_bytes: AtomicU64,
}

#[derive(Debug)]
struct Steps {
    /// Steps until one fails; `u64::MAX` for never.
    left: AtomicU64,
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn DiskFile>,
    steps: Arc<Steps>,
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self {
            steps: Arc::new(Steps {
                left: AtomicU64::new(u64::MAX),
            }),
            open_count: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

impl FaultyDisk {
    pub(super) fn fail_after(&self, steps: u64) {
        self.steps.left.store(steps, Ordering::SeqCst);
    }

    /// Answers whether the step that was to fail was reached.
    pub(super) fn fail_never(&self) -> bool {
        self.steps.left.swap(u64::MAX, Ordering::SeqCst) == u64::MAX
    }
}

impl Steps {
    fn step(&self) -> io::Result<()> {
        let step = |left| match left {
            u64::MAX => None,
            0 => Some(u64::MAX),
            left => Some(left - 1),
        };
        match self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step)
        {
            Ok(0) => Err(io::ErrorKind::StorageFull.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.open_count.fetch_add(1, Ordering::SeqCst);
        if mode == OpenMode::CreateNew {
            self.steps.step()?;
        }
        let file = OsDisk.open(path, mode)?;
        Ok(Box::new(FaultyFile {
            file,
            steps: Arc::clone(&self.steps),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.steps.step()?;
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.steps.step()?;
        OsDisk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.steps.step()?;
        OsDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsDisk.list(path)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.free_bytes.load(Ordering::SeqCst))
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset_bytes)
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.steps.step()?;
        self.file.write_at(bytes, offset_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.steps.step()?;
        self.file.sync_data()
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.steps.step()?;
        self.file.allocate(len_bytes)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.file.truncate(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.file.len_bytes()
    }
}
