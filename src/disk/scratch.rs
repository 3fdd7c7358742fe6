//! A disk for what nobody will read again once the process is gone: the system's own, without the waits.
//!
//! Owns: which promises are left out. Nothing is synced and no space is reserved ahead; reads, writes and names are as
//! on [`OsDisk`].

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{DirEntry, Disk, DiskFile, OpenMode, OsDisk};

/// The operating system's file system for a temporary folder; see the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScratchDisk;

impl Disk for ScratchDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ScratchFile(OsDisk.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsDisk.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(path)
    }
}

#[derive(Debug)]
struct ScratchFile(Box<dyn DiskFile>);

impl DiskFile for ScratchFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset_bytes)
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset_bytes)
    }

    fn write_parts_at(&self, parts: &[io::IoSlice<'_>], offset_bytes: u64) -> io::Result<()> {
        self.0.write_parts_at(parts, offset_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        match self.0.len_bytes()? < len_bytes {
            true => self.0.truncate(len_bytes),
            false => Ok(()),
        }
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.0.truncate(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }

    fn modified(&self) -> io::Result<Duration> {
        self.0.modified()
    }

    fn os_file(&self) -> Option<&std::fs::File> {
        self.0.os_file()
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<bool> {
        self.0.read_cached_at(buffer, offset_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files are as long as they were made, and read back what was written.
    #[test]
    fn a_scratch_file_is_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        let file = ScratchDisk
            .open(&path, OpenMode::CreateNew)
            .expect("a file");
        file.allocate(10).expect("longer");
        file.allocate(5).expect("no shorter");
        file.write_at(b"abc", 2).expect("written");
        file.sync_data().expect("nothing to do");
        let mut buffer = [1; 10];
        file.read_exact_at(&mut buffer, 0).expect("ten bytes");
        assert_eq!(&buffer, b"\0\0abc\0\0\0\0\0");
    }
}
