//! File access as a trait, so that tests can put a lying disk under the journal and the payload store.
//!
//! Owns: nothing but open files. Knows nothing of what is written.
//! Every file that `payload` and `journal` touch is reached through [`Disk`]; `std::fs` appears
//! nowhere else in the library's cores (`tests/tidy.rs` checks this).
#![allow(clippy::disallowed_methods)]

mod scratch;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

pub use scratch::ScratchDisk;

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpenMode {
    /// Read an existing file.
    Read,
    /// Read and write an existing file.
    ReadWrite,
    /// Create a file that must not exist yet, for reading and writing.
    CreateNew,
}

/// One entry of a directory, as [`Disk::list`] gives it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirEntry {
    /// File name without its directory; names that are not UTF-8 are skipped by `list`.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len_bytes: u64,
}

/// A file system: what the journal and the payload store may do with files and directories.
///
/// A new or renamed file is durable only after [`DiskFile::sync_data`] on it and
/// [`Disk::sync_dir`] on its directory.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a file. `NotFound` and `AlreadyExists` mean what they say.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Moves a file over another; atomic for a reader.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Bytes that this process may still write to the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// What a read may wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadFrom {
    /// The disk, for as long as it takes.
    Disk,
    /// Nothing: what is not in memory is not read.
    Cache,
}

/// An open file of a [`Disk`]; positions are absolute, so it can be shared between threads.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Reads at most `buffer.len()` bytes from `offset_bytes`; 0 means end of file.
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset_bytes`.
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()>;
    /// Writes all bytes of `parts`, one behind the other, at `offset_bytes`.
    fn write_parts_at(&self, parts: &[io::IoSlice<'_>], offset_bytes: u64) -> io::Result<()> {
        let mut offset = offset_bytes;
        for part in parts {
            self.write_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }
    /// Makes what was written durable, with the length needed to read it (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space up to `len_bytes`, where the file system can; the length grows, the new bytes read as
    /// zero.
    fn allocate(&self, len_bytes: u64) -> io::Result<()>;
    /// Cuts the file off at `len_bytes`.
    fn truncate(&self, len_bytes: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len_bytes(&self) -> io::Result<u64>;
    /// When the content was last written to, since 1970, by whomever; zero where nobody else writes.
    fn modified(&self) -> io::Result<Duration> {
        Ok(Duration::ZERO)
    }

    /// The system's own file, where there is one: for system calls that take a file themselves.
    fn os_file(&self) -> Option<&fs::File> {
        None
    }

    /// Reads exactly `buffer.len()` bytes; `UnexpectedEof` if the file is shorter.
    fn read_exact_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let offset = offset_bytes + done as u64;
            match self.read_at(&mut buffer[done..], offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As [`Self::read_exact_at`], if all of it can be read without waiting for the disk. Says whether it could;
    /// false where nobody can tell, and then anything may be in `buffer`.
    fn read_cached_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<bool> {
        let _ = (buffer, offset_bytes);
        Ok(false)
    }

    /// Fills `buffer` as far as `from` allows, and says whether it did.
    fn fill_at(&self, from: ReadFrom, buffer: &mut [u8], offset_bytes: u64) -> io::Result<bool> {
        match from {
            ReadFrom::Disk => self.read_exact_at(buffer, offset_bytes).map(|()| true),
            ReadFrom::Cache => self.read_cached_at(buffer, offset_bytes),
        }
    }
}

/// Distance of the places that [`is_cached`] looks at, in bytes: the least that the system reads ahead.
const CACHE_PROBE_BYTES: u64 = 128 * 1024;

/// Whether a range of a file lies in the system's cache, as far as one place in each 128 KiB tells: then reading it
/// waits for no disk. False where the system cannot say.
pub fn is_cached(file: &fs::File, offset_bytes: u64, length_bytes: u64) -> bool {
    let Some(last) = length_bytes.checked_sub(1) else {
        return true;
    };
    let step = usize::try_from(CACHE_PROBE_BYTES).unwrap_or(usize::MAX);
    let is_there = |place: u64| {
        let (mut octet, flags) = ([0], rustix::io::ReadWriteFlags::NOWAIT);
        let mut slices = [io::IoSliceMut::new(&mut octet)];
        rustix::io::preadv2(file, &mut slices, offset_bytes + place, flags) == Ok(1)
    };
    (0..last).step_by(step).all(is_there) && is_there(last)
}

/// Lets the system's cache forget a file, as far as it is on disk: nobody is known to read it soon.
///
/// # Errors
/// If the file system cannot.
pub fn forget_cached(file: &fs::File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(
        file,
        0,
        None,
        rustix::fs::Advice::DontNeed,
    )?)
}

/// The operating system's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let is_dir = metadata.is_dir();
            let len_bytes = if is_dir { 0 } else { metadata.len() };
            entries.push(DirEntry {
                name,
                is_dir,
                len_bytes,
            });
        }
        Ok(entries)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// What `statfs` says of a file system in memory (`linux/magic.h`).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Most parts of one write: Linux takes 1,024.
const WRITE_PARTS_MAX: usize = 256;

#[derive(Debug)]
struct OsFile(fs::File);

impl OsFile {
    fn extend(&self, len_bytes: u64) -> io::Result<()> {
        if self.0.metadata()?.len() < len_bytes {
            self.0.set_len(len_bytes)?;
        }
        Ok(())
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset_bytes)
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset_bytes)
    }

    fn write_parts_at(&self, parts: &[io::IoSlice<'_>], offset_bytes: u64) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let (mut left, mut offset) = (&mut parts[..], offset_bytes);
        // Empty parts in front are no octets to write.
        io::IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let some = left.get(..WRITE_PARTS_MAX).unwrap_or(left);
            match rustix::io::pwritev(&self.0, some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    io::IoSlice::advance_slices(&mut left, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        // In memory there is nothing to lay out, and reserving would take all of the memory at once.
        if rustix::fs::fstatfs(&self.0)?.f_type == TMPFS_MAGIC {
            return self.extend(len_bytes);
        }
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&self.0, flags, 0, len_bytes) {
            Ok(()) => Ok(()),
            // Not every file system can reserve; a sparse file is the next best thing.
            Err(rustix::io::Errno::OPNOTSUPP) => self.extend(len_bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn os_file(&self) -> Option<&fs::File> {
        Some(&self.0)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<bool> {
        let (mut done, flags) = (0, rustix::io::ReadWriteFlags::NOWAIT);
        while done < buffer.len() {
            let offset = offset_bytes + done as u64;
            let mut slices = [io::IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&self.0, &mut slices, offset, flags) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn modified(&self) -> io::Result<Duration> {
        let since = self.0.metadata()?.modified()?;
        // A time before 1970 is nobody's but a clock's that was not set.
        Ok(since
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts are written one behind the other, whether they are many, empty or long.
    #[test]
    fn parts_follow_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = vec![9; 3_000_000];
        let mut parts: Vec<Vec<u8>> = (0..1_000).map(|at| vec![at as u8; at % 3]).collect();
        parts.insert(500, long);
        let slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let expected = [vec![0; 7], parts.concat()].concat();
        let file = OsDisk.open(&folder.path().join("file"), OpenMode::CreateNew);
        let file = file.expect("a file");
        file.write_parts_at(&slices, 7).expect("room");
        file.write_parts_at(&[], 0).expect("nothing to do");
        let mut all = vec![1; expected.len()];
        file.read_exact_at(&mut all, 0).expect("as long");
        assert!(all == expected);
        assert_eq!(file.len_bytes().expect("there"), expected.len() as u64);
    }

    /// What was just written is in the cache, what lies behind the end is nowhere, and a forgotten file reads as before.
    #[test]
    fn a_file_is_cached_until_it_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = OsDisk.open(&folder.path().join("file"), OpenMode::CreateNew);
        let file = file.expect("a file");
        let content = vec![7; 300_000];
        file.write_at(&content, 0).expect("room");
        file.sync_data().expect("a disk");
        let os = file.os_file().expect("the system's");
        assert!(is_cached(os, 0, 300_000));
        assert!(is_cached(os, 299_999, 1));
        assert!(is_cached(os, 300_000, 0), "nothing is missing of nothing");
        assert!(!is_cached(os, 0, 300_001));
        let mut cached = vec![0; 300_000];
        assert!(file.read_cached_at(&mut cached, 0).expect("readable"));
        assert_eq!(cached, content);
        let behind = file.read_cached_at(&mut cached, 1);
        assert_eq!(behind.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        forget_cached(os).expect("a file system that can");
        let mut again = vec![0; 300_000];
        file.read_exact_at(&mut again, 0).expect("still there");
        assert_eq!(again, content);
    }
}
