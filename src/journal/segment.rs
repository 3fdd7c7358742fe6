//! One segment file: its name, its header, and reading its records in order.
//!
//! Owns: the byte map of a segment before its first batch, and the reading window of a scan.
//! Bound: a scan holds [`WINDOW_BYTES`], or one record if that is larger.
//! Spec: `spec/journal.md`, "Segment: byte map", JOURNAL-5, JOURNAL-8.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, ReadFrom};

use super::error::JournalError;
use super::footer::{TRAILER_BYTES, Trailer};
use super::record::{
    ALIGN_BYTES, CATALOG_ENTRY_BYTES, CATALOG_FIXED_BYTES, CatalogEntry, HEAD_BYTES, Head, Input,
    Kind, MARK_BYTES, Record, decode, decode_catalog, encode_catalog, write_checksum,
};
use super::types::Lsn;

/// Bytes before the catalog.
pub(crate) const HEADER_BYTES: usize = 64;
/// The format number that this program writes. It reads all from [`VERSION_MIN`] on.
pub(crate) const VERSION: u32 = 2;
/// The oldest format number that is read: without footers, and without some kinds of records.
pub(crate) const VERSION_MIN: u32 = 1;
/// Read at the end of a file, in the hope that the whole summary is in it, in bytes.
const FOOTER_READ_BYTES: u64 = 64 << 10;
/// Read in one go by a scan, in bytes.
const WINDOW_BYTES: usize = 1 << 20;
const MAGIC: [u8; 8] = *b"WARRENJ\x01";
const CHECKSUM_AT: usize = 60;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) number: u32,
    pub(crate) store_id: [u8; 16],
    /// The number of the first numbered record in the file.
    pub(crate) first: Lsn,
    pub(crate) salt: u64,
    /// Where the first batch begins, in bytes.
    pub(crate) records_at: u32,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BadHeader {
    Magic,
    Version(u32),
    Checksum,
    Fields,
}

impl Header {
    /// The header and, behind it, the catalog, up to `records_at`.
    pub(crate) fn encode_with_catalog(&self, entries: &[CatalogEntry]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.records_at as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.records_at.to_le_bytes());
        out.resize(CHECKSUM_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(out.len(), HEADER_BYTES);
        encode_catalog(&mut out, Lsn(self.first.0.saturating_sub(1)), entries);
        write_checksum(&mut out[HEADER_BYTES..], self.salt);
        assert!(
            out.len() <= self.records_at as usize,
            "room for the catalog was kept"
        );
        out.resize(self.records_at as usize, 0);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Magic)?;
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(BadHeader::Magic);
        }
        let (content, stored) = bytes.split_at(CHECKSUM_AT);
        if crc32c::crc32c(content).to_le_bytes() != stored {
            return Err(BadHeader::Checksum);
        }
        let mut input = Input(content.get(8..).ok_or(BadHeader::Magic)?);
        Self::decode_fields(&mut input).ok_or(BadHeader::Magic)?
    }

    fn decode_fields(input: &mut Input<'_>) -> Option<Result<Self, BadHeader>> {
        let version = input.u32()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Some(Err(BadHeader::Version(version)));
        }
        let number = input.u32()?;
        let store_id = input.bytes(16)?.try_into().ok()?;
        let first = Lsn(input.u64()?);
        let salt = input.u64()?;
        let records_at = input.u32()?;
        let aligned = (records_at as usize).is_multiple_of(ALIGN_BYTES);
        let is_first_sound = first > Lsn::ZERO && first < Lsn(u64::MAX / 2);
        if !aligned || !is_first_sound || (records_at as usize) < HEADER_BYTES + CATALOG_FIXED_BYTES
        {
            return Some(Err(BadHeader::Fields));
        }
        Some(Ok(Self {
            number,
            store_id,
            first,
            salt,
            records_at,
        }))
    }
}

/// Where the first batch begins in a segment whose catalog has at most `entry_count` entries.
pub(crate) fn records_at(entry_count: usize) -> u32 {
    let bytes = HEADER_BYTES + CATALOG_FIXED_BYTES + entry_count * CATALOG_ENTRY_BYTES;
    u32::try_from(bytes.next_multiple_of(ALIGN_BYTES)).expect("a catalog is far below 4 GiB")
}

/// The directory of a journal: the disk, and the names in it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentDir {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
}

/// What a file in the directory is, by its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum FileRole {
    Segment(u32),
    Spare(u64),
    New,
    Other,
}

impl SegmentDir {
    pub(crate) fn segment_path(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:010}.seg"))
    }

    pub(crate) fn new_path(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:010}.new"))
    }

    pub(crate) fn spare_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("spare-{number}"))
    }

    pub(crate) fn role(name: &str) -> FileRole {
        if let Some(digits) = name.strip_suffix(".seg") {
            return match digits.parse() {
                Ok(number) if digits.len() == 10 => FileRole::Segment(number),
                _ => FileRole::Other,
            };
        }
        if let Some(digits) = name.strip_prefix("spare-") {
            return digits.parse().map_or(FileRole::Other, FileRole::Spare);
        }
        if name.ends_with(".new") {
            FileRole::New
        } else {
            FileRole::Other
        }
    }
}

/// An `io::Error` with what was tried on which file.
pub(crate) fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io {
        doing,
        path: path.to_path_buf(),
        source,
    }
}

/// A segment open for reading, whose header was right.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) file_bytes: u64,
}

impl OpenSegment {
    /// Fills `bytes` from the place `at`, as far as `from` allows.
    pub(crate) fn fill(
        &self,
        from: ReadFrom,
        bytes: &mut [u8],
        at: u64,
    ) -> Result<(), JournalError> {
        match self.file.fill_at(from, bytes, at) {
            Ok(true) => Ok(()),
            Ok(false) => Err(JournalError::WouldWait),
            Err(error) => Err(io_error("read", &self.path)(error)),
        }
    }

    /// Opens the segment `number` and checks its header.
    pub(crate) fn open(dir: &SegmentDir, number: u32) -> Result<Self, JournalError> {
        let path = dir.segment_path(number);
        let file = dir
            .disk
            .open(&path, crate::disk::OpenMode::Read)
            .map_err(io_error("open", &path))?;
        let file_bytes = file.len_bytes().map_err(io_error("read", &path))?;
        let mut bytes = vec![0; HEADER_BYTES];
        let damaged = |what: &str| JournalError::Damaged {
            path: path.clone(),
            offset: 0,
            what: what.to_owned(),
        };
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it is shorter than its header"));
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        }
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(BadHeader::Version(version)) => {
                return Err(JournalError::UnknownVersion { path, version });
            }
            Err(BadHeader::Magic) => return Err(damaged("it is not a journal segment")),
            Err(BadHeader::Checksum) => return Err(damaged("the header's checksum is wrong")),
            Err(BadHeader::Fields) => return Err(damaged("the header's numbers are wrong")),
        };
        if header.number != number {
            return Err(damaged("the header has another segment's number"));
        }
        if u64::from(header.records_at) > file_bytes {
            return Err(damaged("it is shorter than its catalog"));
        }
        Ok(Self {
            file,
            path,
            header,
            file_bytes,
        })
    }

    /// Reads the catalog, which was synced before the file got its name.
    pub(crate) fn catalog(&self) -> Result<Vec<CatalogEntry>, JournalError> {
        let mut bytes = vec![0; self.header.records_at as usize];
        self.file
            .read_exact_at(&mut bytes, 0)
            .map_err(io_error("read", &self.path))?;
        let catalog = bytes.get(HEADER_BYTES..).unwrap_or_default();
        decode(catalog, self.header.salt)
            .filter(|record| record.head.kind == Kind::Catalog)
            .and_then(|record| decode_catalog(record.body))
            .ok_or_else(|| self.damaged(HEADER_BYTES as u64, "the catalog is not whole"))
    }

    /// The trailer and the bytes of the summary; `None` if the file does not end with a whole footer.
    pub(crate) fn footer_parts(&self) -> Result<Option<(Trailer, Vec<u8>)>, JournalError> {
        let len = self.file_bytes.min(FOOTER_READ_BYTES);
        let read_from = self.file_bytes - len;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = |bytes: &mut [u8], at| {
            let read = self.file.read_exact_at(bytes, at);
            read.map_err(io_error("read", &self.path))
        };
        read(&mut bytes, read_from)?;
        let header = &self.header;
        let Some(trailer) = Trailer::decode(&bytes, header.number, header.salt) else {
            return Ok(None);
        };
        let at = u64::from(trailer.base) + u64::from(trailer.summary_at);
        let end = at + u64::from(trailer.summary_bytes);
        if end + TRAILER_BYTES as u64 != self.file_bytes {
            return Ok(None);
        }
        let summary = match at.checked_sub(read_from).map(usize::try_from) {
            Some(Ok(from)) => {
                bytes.truncate(bytes.len() - TRAILER_BYTES);
                bytes.split_off(from.min(bytes.len()))
            }
            _ => {
                let mut summary = vec![0; trailer.summary_bytes as usize];
                read(&mut summary, at)?;
                summary
            }
        };
        let is_sound = crc32c::crc32c(&summary) == trailer.summary_checksum;
        Ok((is_sound || super::sabotage::ignores_checksums()).then_some((trailer, summary)))
    }

    /// BLAKE3 of the file's bytes up to `end`.
    pub(crate) fn hash(&self, end: u64) -> Result<[u8; 32], JournalError> {
        let mut hasher = blake3::Hasher::new();
        let mut window = vec![0; WINDOW_BYTES];
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at)
                .unwrap_or(WINDOW_BYTES)
                .min(WINDOW_BYTES);
            let part = window.get_mut(..len).unwrap_or_default();
            self.file
                .read_exact_at(part, at)
                .map_err(io_error("read", &self.path))?;
            hasher.update(part);
            at += len as u64;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    pub(crate) fn damaged(&self, offset: u64, what: &str) -> JournalError {
        JournalError::Damaged {
            path: self.path.clone(),
            offset,
            what: what.to_owned(),
        }
    }
}

/// Reads records one after the other.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    segment: &'a OpenSegment,
    /// Where the next record begins.
    position: u64,
    window: Vec<u8>,
    window_at: u64,
}

/// What a scan met.
#[derive(Debug)]
pub(crate) enum Scanned<'a> {
    /// A whole record at this offset.
    Record {
        offset: u32,
        record: Record<'a>,
        bytes: &'a [u8],
    },
    /// Something that is not a whole record, or the end of the file.
    Bad { offset: u64 },
}

impl<'a> Scan<'a> {
    pub(crate) fn new(segment: &'a OpenSegment) -> Self {
        Self::at(segment, segment.header.records_at)
    }

    /// Goes on at `offset`, where a record begins.
    pub(crate) fn at(segment: &'a OpenSegment, offset: u32) -> Self {
        let position = u64::from(offset);
        Self {
            segment,
            position,
            window: Vec::new(),
            window_at: position,
        }
    }

    /// Where the next record begins, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next record; the scan stays where it is at a bad one.
    pub(crate) fn next(&mut self) -> Result<Scanned<'_>, JournalError> {
        let offset = self.position;
        self.fill(HEAD_BYTES)?;
        let start = self.window_start();
        let Some(head) = self.window.get(start..).and_then(Head::decode) else {
            return Ok(Scanned::Bad { offset });
        };
        let len = head.record_bytes();
        if len as u64 > self.segment.file_bytes.saturating_sub(offset) {
            return Ok(Scanned::Bad { offset });
        }
        self.fill(len)?;
        let start = self.window_start();
        let Some(bytes) = self.window.get(start..start + len) else {
            return Ok(Scanned::Bad { offset });
        };
        match (
            decode(bytes, self.segment.header.salt),
            u32::try_from(offset),
        ) {
            (Some(record), Ok(offset)) => {
                self.position += len as u64;
                Ok(Scanned::Record {
                    offset,
                    record,
                    bytes,
                })
            }
            _ => Ok(Scanned::Bad { offset }),
        }
    }

    fn window_start(&self) -> usize {
        usize::try_from(self.position - self.window_at).unwrap_or(usize::MAX)
    }

    /// Makes `len` bytes from the position on be in the window, as far as the file has them.
    fn fill(&mut self, len: usize) -> Result<(), JournalError> {
        let start = self.window_start();
        if self.window.len().saturating_sub(start) >= len {
            return Ok(());
        }
        let left = self.segment.file_bytes.saturating_sub(self.position);
        let wanted = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(len.max(WINDOW_BYTES));
        self.window.resize(wanted, 0);
        self.window_at = self.position;
        self.segment
            .file
            .read_exact_at(&mut self.window, self.position)
            .map_err(io_error("read", &self.segment.path))
    }

    /// Looks in all bytes from the position on for a sync mark that names `lsn` or a later record.
    ///
    /// Gives the offset of that mark. Spec: JOURNAL-9.
    // req: JOURNAL-9
    pub(crate) fn find_cover(&self, lsn: Lsn) -> Result<Option<u64>, JournalError> {
        let mut position = self.position;
        let mut window = Vec::new();
        while position < self.segment.file_bytes {
            let left = self.segment.file_bytes - position;
            let len = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(WINDOW_BYTES + MARK_BYTES);
            window.resize(len, 0);
            self.segment
                .file
                .read_exact_at(&mut window, position)
                .map_err(io_error("read", &self.segment.path))?;
            let mut from = 0;
            while let Some((at, durable)) = super::record::find_mark(
                window.get(from..).unwrap_or_default(),
                self.segment.header.salt,
            ) {
                if durable >= lsn {
                    return Ok(Some(position + (from + at) as u64));
                }
                from += at + ALIGN_BYTES;
            }
            position += WINDOW_BYTES as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            number: 7,
            store_id: [3; 16],
            first: Lsn(100),
            salt: 9,
            records_at: records_at(2),
        }
    }

    /// Header and catalog come back; a flipped bit in the header is seen.
    #[test]
    fn header_round_trip() {
        let entry = CatalogEntry {
            number: 6,
            first: Lsn(50),
            end: Lsn(100),
        };
        let bytes = header().encode_with_catalog(&[entry]);
        assert_eq!(bytes.len(), records_at(2) as usize);
        assert_eq!(Header::decode(&bytes), Ok(header()));
        let record = decode(&bytes[HEADER_BYTES..], 9).unwrap();
        assert_eq!(decode_catalog(record.body), Some(vec![entry]));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    /// A file name says what the file is, and nothing else is taken for a segment.
    #[test]
    fn names_tell_roles() {
        for (name, role) in [
            ("0000000012.seg", FileRole::Segment(12)),
            ("12.seg", FileRole::Other),
            ("spare-3", FileRole::Spare(3)),
            ("spare-x", FileRole::Other),
            ("0000000012.new", FileRole::New),
            ("notes.txt", FileRole::Other),
        ] {
            assert_eq!(SegmentDir::role(name), role, "{name}");
        }
    }
}
