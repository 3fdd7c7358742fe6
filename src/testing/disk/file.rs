//! An open file of the simulated disk.

use std::io;

use crate::disk::DiskFile;

use super::SimDisk;
use super::image::{Change, Inode};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: Inode,
    pub(super) is_writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    fn set_len(&self, len: usize) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        state.begin_op()?;
        state.check_space(self.inode, len)?;
        state.change(Change::SetLen {
            inode: self.inode,
            len,
        });
        Ok(())
    }
}

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        if state.reads_fail {
            return Err(io::Error::other("the simulated disk reads nothing"));
        }
        let Some(content) = state.live.contents.get(&self.inode) else {
            return Ok(0);
        };
        let rest = content.get(to_usize(offset_bytes)?..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<bool> {
        let waits = self.disk.state.lock().reads_wait;
        match waits {
            true => Ok(false),
            false => self.read_exact_at(buffer, offset_bytes).map(|()| true),
        }
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let offset = to_usize(offset_bytes)?;
        let inode = self.inode;
        let mut state = self.disk.state.lock();
        if let Err(error) = state.begin_op() {
            if !state.is_off() {
                let half = bytes[..bytes.len() / 2].into();
                state.change(Change::Write {
                    inode,
                    offset,
                    bytes: half,
                });
            }
            return Err(error);
        }
        state.check_space(inode, offset + bytes.len())?;
        state.change(Change::Write {
            inode,
            offset,
            bytes: bytes.into(),
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if let Err(error) = state.begin_op() {
            if !state.is_off() {
                state.change(Change::Sync {
                    inode: self.inode,
                    is_ok: false,
                });
            }
            return Err(error);
        }
        state.sync_count += 1;
        state.change(Change::Sync {
            inode: self.inode,
            is_ok: true,
        });
        Ok(())
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        let len = to_usize(len_bytes)?;
        if self.len_bytes()? >= len_bytes {
            return Ok(());
        }
        self.set_len(len)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.set_len(to_usize(len_bytes)?)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        Ok(state
            .live
            .contents
            .get(&self.inode)
            .map_or(0, |content| content.len() as u64))
    }
}
