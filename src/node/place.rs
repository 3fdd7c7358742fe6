//! Places a verified file into the inbox: whole, under a safe name, or not at all.
//!
//! Owns: what a sender's file name may be ([`LeafName`]) and how a file appears ([`Inbox`]): written
//! under a temporary name, synced, renamed without replacing anything, directory synced. Every step
//! goes through the inbox's own descriptor and follows no symlink, so that nothing outside it can be reached.
//! Bound: one buffer of `COPY_BUFFER_BYTES`; `NAME_TRIES_MAX` names tried on collisions.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Longest file name, in bytes, as every usual file system has it.
pub const NAME_BYTES_MAX: usize = 255;
/// What the names of files that are not yet whole begin with; a sender's name must not.
pub const TEMPORARY_PREFIX: &str = ".warren-";
/// Bytes copied at a time.
const COPY_BUFFER_BYTES: usize = 1 << 20;
/// How many names are tried when other files have the name already.
const NAME_TRIES_MAX: u32 = 1_000;
/// Names that one system or another takes for a device, whatever extension follows.
const DEVICE_NAMES: [&str; 24] = [
    "con", "prn", "aux", "nul", "conin$", "conout$", "com1", "com2", "com3", "com4", "com5",
    "com6", "com7", "com8", "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8",
    "lpt9",
];

/// Why a sender's file name is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It holds a control character or one that reorders the text around it.
    #[error("it holds a control character")]
    Control,
    /// It names a device of some system.
    #[error("it names a device")]
    Device,
    /// It is the empty name, `.` or `..`.
    #[error("it is no name")]
    NoName,
    /// It begins as a temporary file of Warren's does.
    #[error("names that begin with '{TEMPORARY_PREFIX}' are Warren's own")]
    Reserved,
    /// It holds a separator of some system, or a drive letter.
    #[error("it holds a path separator or a drive letter")]
    Separator,
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("it is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// It ends with a dot or a space, which some systems drop.
    #[error("it ends with a dot or a space")]
    Trailing,
}

/// A file name that is one harmless path component on every system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeafName(String);

impl LeafName {
    /// Checks a name that came from outside (RELIABILITY section 5, `save_as_leaf`).
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks; nothing is repaired, since a repaired name could
    /// meet another file's.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if matches!(name, "" | "." | "..") {
            return Err(NameError::NoName);
        }
        if name.contains(['/', '\\']) || has_drive_letter(name) {
            return Err(NameError::Separator);
        }
        if name.chars().any(|c| c.is_control() || reorders_text(c)) {
            return Err(NameError::Control);
        }
        if name.ends_with(['.', ' ']) {
            return Err(NameError::Trailing);
        }
        let stem = name
            .split('.')
            .next()
            .unwrap_or(name)
            .trim_end()
            .to_ascii_lowercase();
        if DEVICE_NAMES.contains(&stem.as_str()) {
            return Err(NameError::Device);
        }
        if name.starts_with(TEMPORARY_PREFIX) {
            return Err(NameError::Reserved);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with a number before its extension, shortened where it would grow too long.
    fn numbered(&self, number: u32) -> String {
        let (stem, extension) = match self.0.rfind('.') {
            Some(dot) if dot > 0 => self.0.split_at(dot),
            _ => (self.0.as_str(), ""),
        };
        let tail = format!("-{number}{extension}");
        let mut room = NAME_BYTES_MAX.saturating_sub(tail.len()).min(stem.len());
        while !stem.is_char_boundary(room) {
            room -= 1;
        }
        format!("{}{tail}", &stem[..room])
    }
}

fn has_drive_letter(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.next() == Some(b':')
}

/// Characters that change the direction of what follows, and so make a name look like another.
fn reorders_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why a file could not be placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The inbox is a symlink; what it points to could change under us.
    #[error("the inbox {} is a symlink; name the folder it points to", .0.display())]
    InboxIsSymlink(PathBuf),
    /// The inbox is missing or no folder.
    #[error("the inbox {} is no folder; create it", .0.display())]
    NoInbox(PathBuf),
    /// The disk of the inbox is full.
    #[error("the disk of the inbox {} is full; free some space", .0.display())]
    Full(PathBuf),
    /// Too many other files have the name already.
    #[error("{NAME_TRIES_MAX} files named like '{name}' are in the inbox; clear some away")]
    NoFreeName {
        /// The name asked for.
        name: String,
    },
    /// The file to place is not what it should be.
    #[error("the bytes of '{name}' do not have the hash that they should have")]
    Content {
        /// The name asked for.
        name: String,
    },
    /// Another failure of the file system.
    #[error("cannot place a file into the inbox {}: {cause}", inbox.display())]
    Io {
        /// The inbox.
        inbox: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// What became of a file that was to be placed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Placed {
    /// It was copied or written into the inbox, at this path.
    Written(PathBuf),
    /// A file of the store has this path in the inbox too.
    Linked(PathBuf),
    /// The same bytes were there already, at this path; nothing was changed.
    AlreadyThere(PathBuf),
}

impl Placed {
    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Written(path) | Self::Linked(path) | Self::AlreadyThere(path) => path,
        }
    }
}

/// The folder that files are placed in.
#[derive(Debug)]
pub struct Inbox {
    folder: OwnedFd,
    path: PathBuf,
}

impl Inbox {
    /// Opens the folder and clears away files that an earlier run left unfinished.
    ///
    /// # Errors
    /// [`PlaceError::InboxIsSymlink`], [`PlaceError::NoInbox`], or what the system says.
    pub fn open(path: &Path) -> Result<Self, PlaceError> {
        let metadata = path
            .symlink_metadata()
            .map_err(|_| PlaceError::NoInbox(path.to_owned()))?;
        if metadata.is_symlink() {
            return Err(PlaceError::InboxIsSymlink(path.to_owned()));
        }
        if !metadata.is_dir() {
            return Err(PlaceError::NoInbox(path.to_owned()));
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io_error(path, errno))?;
        let inbox = Self {
            folder,
            path: path.to_owned(),
        };
        inbox.remove_unfinished()?;
        Ok(inbox)
    }

    fn remove_unfinished(&self) -> Result<(), PlaceError> {
        let entries = rustix::fs::Dir::read_from(&self.folder).map_err(|e| self.error(e))?;
        for entry in entries {
            let entry = entry.map_err(|errno| self.error(errno))?;
            if entry
                .file_name()
                .to_bytes()
                .starts_with(TEMPORARY_PREFIX.as_bytes())
            {
                rustix::fs::unlinkat(&self.folder, entry.file_name(), AtFlags::empty())
                    .map_err(|errno| self.error(errno))?;
            }
        }
        Ok(())
    }

    /// Writes `bytes`, whose BLAKE3 hash is `hash`, as a new file.
    ///
    /// # Errors
    /// [`PlaceError`]; then nothing is left behind.
    pub fn place_bytes(
        &self,
        name: &LeafName,
        hash: [u8; 32],
        bytes: &[u8],
    ) -> Result<Placed, PlaceError> {
        if *blake3::hash(bytes).as_bytes() != hash {
            return Err(PlaceError::Content {
                name: name.0.clone(),
            });
        }
        let temporary = temporary_name(hash);
        let write = |file: &mut File| file.write_all(bytes);
        self.write_temporary(&temporary, write)?;
        self.appear(name, hash, bytes.len() as u64, &temporary)
    }

    /// Writes a file of `size_bytes` whose bytes `read` gives by their offset; the hash is checked on
    /// the way, so that nothing else than `hash` ever appears.
    ///
    /// # Errors
    /// [`PlaceError`]; then nothing is left behind.
    pub fn place_from(
        &self,
        name: &LeafName,
        hash: [u8; 32],
        size_bytes: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> Result<Placed, PlaceError> {
        // The usual second delivery is found without writing anything.
        if self.holds(name.as_str(), hash, size_bytes) {
            return Ok(Placed::AlreadyThere(self.path.join(name.as_str())));
        }
        let temporary = temporary_name(hash);
        let mut hasher = blake3::Hasher::new();
        let copy = |file: &mut File| {
            let mut buffer = vec![0; COPY_BUFFER_BYTES];
            let mut offset_bytes = 0;
            while offset_bytes < size_bytes {
                let left_bytes = size_bytes - offset_bytes;
                let count =
                    usize::try_from(left_bytes).map_or(buffer.len(), |n| n.min(buffer.len()));
                let (portion, _) = buffer.split_at_mut(count);
                read(portion, offset_bytes)?;
                hasher.update(portion);
                file.write_all(portion)?;
                offset_bytes += count as u64;
            }
            Ok(())
        };
        self.write_temporary(&temporary, copy)?;
        if *hasher.finalize().as_bytes() != hash {
            self.unlink(&temporary);
            return Err(PlaceError::Content {
                name: name.0.clone(),
            });
        }
        self.appear(name, hash, size_bytes, &temporary)
    }

    /// Gives the file at `source`, which is known to have this hash and size and to be synced, a name in
    /// the inbox too: not a byte is copied.
    ///
    /// `None` where the file system takes no second name for it: another one, or one without links.
    ///
    /// # Errors
    /// [`PlaceError`]; then nothing is left behind.
    pub fn place_link(
        &self,
        name: &LeafName,
        hash: [u8; 32],
        size_bytes: u64,
        source: &Path,
    ) -> Result<Option<Placed>, PlaceError> {
        let temporary = temporary_name(hash);
        let link = || {
            let flags = AtFlags::empty();
            rustix::fs::linkat(rustix::fs::CWD, source, &self.folder, &*temporary, flags)
        };
        let linked = match link() {
            // Left by an attempt of this run that failed half way.
            Err(Errno::EXIST) => {
                self.unlink(&temporary);
                link()
            }
            other => other,
        };
        match linked {
            Ok(()) => {
                let placed = self.appear(name, hash, size_bytes, &temporary)?;
                Ok(Some(match placed {
                    Placed::Written(path) => Placed::Linked(path),
                    other => other,
                }))
            }
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::ACCESS) => {
                Ok(None)
            }
            Err(errno) => Err(self.error(errno)),
        }
    }

    /// Creates the temporary file, fills and syncs it; removes it on failure.
    fn write_temporary(
        &self,
        temporary: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), PlaceError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let created = match rustix::fs::openat(&self.folder, temporary, flags, mode) {
            // Left by an attempt of this run that failed half way.
            Err(Errno::EXIST) => {
                self.unlink(temporary);
                rustix::fs::openat(&self.folder, temporary, flags, mode)
            }
            other => other,
        };
        let mut file = File::from(created.map_err(|errno| self.error(errno))?);
        let written = fill(&mut file).and_then(|()| file.sync_all());
        written.map_err(|error| {
            self.unlink(temporary);
            self.io(error)
        })
    }

    /// Gives the whole and synced temporary file its name, or the first free one like it.
    fn appear(
        &self,
        name: &LeafName,
        hash: [u8; 32],
        size_bytes: u64,
        temporary: &str,
    ) -> Result<Placed, PlaceError> {
        for number in 1..=NAME_TRIES_MAX {
            let wanted = if number == 1 {
                name.0.clone()
            } else {
                name.numbered(number)
            };
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.folder, temporary, &self.folder, &*wanted, flags)
            {
                Ok(()) => {
                    rustix::fs::fsync(&self.folder).map_err(|errno| self.error(errno))?;
                    return Ok(Placed::Written(self.path.join(wanted)));
                }
                Err(Errno::EXIST) if self.holds(&wanted, hash, size_bytes) => {
                    self.unlink(temporary);
                    return Ok(Placed::AlreadyThere(self.path.join(wanted)));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => {
                    self.unlink(temporary);
                    return Err(self.error(errno));
                }
            }
        }
        self.unlink(temporary);
        Err(PlaceError::NoFreeName {
            name: name.0.clone(),
        })
    }

    /// Whether the inbox has a regular file of this name with this content.
    #[must_use]
    pub fn holds(&self, name: &str, hash: [u8; 32], size_bytes: u64) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(descriptor) = rustix::fs::openat(&self.folder, name, flags, Mode::empty()) else {
            return false;
        };
        let mut file = File::from(descriptor);
        let same_size = file
            .metadata()
            .is_ok_and(|m| m.is_file() && m.len() == size_bytes);
        same_size && hash_of(&mut file).is_ok_and(|found| found == hash)
    }

    fn unlink(&self, name: &str) {
        if let Err(errno) = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            tracing::warn!(inbox = %self.path.display(), name, %errno, "cannot remove a temporary file");
        }
    }

    fn error(&self, errno: Errno) -> PlaceError {
        io_error(&self.path, errno)
    }

    fn io(&self, error: io::Error) -> PlaceError {
        match Errno::from_io_error(&error) {
            Some(errno) => io_error(&self.path, errno),
            None => PlaceError::Io {
                inbox: self.path.clone(),
                cause: error,
            },
        }
    }
}

fn io_error(inbox: &Path, errno: Errno) -> PlaceError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => PlaceError::Full(inbox.to_owned()),
        _ => PlaceError::Io {
            inbox: inbox.to_owned(),
            cause: errno.into(),
        },
    }
}

/// One temporary name for each content: a second attempt meets what the first one left.
fn temporary_name(hash: [u8; 32]) -> String {
    let hex = blake3::Hash::from_bytes(hash).to_hex();
    format!("{TEMPORARY_PREFIX}{}.part", &hex[..32])
}

fn hash_of(file: &mut File) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn name(text: &str) -> LeafName {
        LeafName::new(text).expect(text)
    }

    fn place(inbox: &Inbox, file: &str, bytes: &[u8]) -> Placed {
        let hash = *blake3::hash(bytes).as_bytes();
        inbox.place_bytes(&name(file), hash, bytes).expect(file)
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        names
    }

    /// What could reach outside the inbox, name a device or hide what it is, is refused.
    #[test]
    fn dangerous_names_are_refused() {
        let cases = [
            ("", NameError::NoName),
            ("..", NameError::NoName),
            ("a/b", NameError::Separator),
            ("..\\b", NameError::Separator),
            ("c:x", NameError::Separator),
            ("a\0b", NameError::Control),
            ("a\nb", NameError::Control),
            ("a\u{202e}gpj.exe", NameError::Control),
            ("NUL", NameError::Device),
            ("com1.tar.gz", NameError::Device),
            ("x.", NameError::Trailing),
            ("x ", NameError::Trailing),
            (".warren-x", NameError::Reserved),
        ];
        for (text, error) in cases {
            assert_eq!(LeafName::new(text), Err(error), "{text:?}");
        }
        assert_eq!(LeafName::new(&"x".repeat(256)), Err(NameError::TooLong));
        for text in [
            "a",
            ".profile",
            "a b.tar.gz",
            "ünï",
            "12:30.log",
            "console",
            &"x".repeat(255),
        ] {
            assert!(LeafName::new(text).is_ok(), "{text}");
        }
    }

    /// The same bytes are placed once; other bytes of the same name get a number.
    #[test]
    fn a_name_in_use_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let inbox = Inbox::open(folder.path()).expect("an inbox");
        assert_eq!(
            place(&inbox, "a.txt", b"one"),
            Placed::Written(folder.path().join("a.txt"))
        );
        assert_eq!(
            place(&inbox, "a.txt", b"one"),
            Placed::AlreadyThere(folder.path().join("a.txt"))
        );
        assert_eq!(
            place(&inbox, "a.txt", b"two"),
            Placed::Written(folder.path().join("a-2.txt"))
        );
        assert_eq!(
            place(&inbox, "a.txt", b"six"),
            Placed::Written(folder.path().join("a-3.txt"))
        );
        assert_eq!(names_in(folder.path()), ["a-2.txt", "a-3.txt", "a.txt"]);
        assert_eq!(
            fs::read(folder.path().join("a-3.txt")).expect("a file"),
            b"six"
        );
    }

    /// A symlink with the file's name is neither followed nor replaced.
    #[test]
    fn a_symlink_in_the_inbox_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        let target = outside.path().join("secret");
        std::os::unix::fs::symlink(&target, folder.path().join("a")).expect("a link");
        let inbox = Inbox::open(folder.path()).expect("an inbox");
        assert_eq!(
            place(&inbox, "a", b"x"),
            Placed::Written(folder.path().join("a-2"))
        );
        assert!(!target.exists());
    }

    /// An inbox that is a symlink, missing or a file is refused.
    #[test]
    fn an_inbox_must_be_a_real_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("a link");
        assert!(matches!(
            Inbox::open(&link),
            Err(PlaceError::InboxIsSymlink(_))
        ));
        let missing = folder.path().join("missing");
        assert!(matches!(Inbox::open(&missing), Err(PlaceError::NoInbox(_))));
        let file = folder.path().join("file");
        fs::write(&file, b"").expect("a file");
        assert!(matches!(Inbox::open(&file), Err(PlaceError::NoInbox(_))));
    }

    /// Bytes that do not have the announced hash never appear.
    #[test]
    fn wrong_bytes_never_appear() {
        let folder = tempfile::tempdir().expect("a folder");
        let inbox = Inbox::open(folder.path()).expect("an inbox");
        let result = inbox.place_bytes(&name("a"), [0; 32], b"x");
        assert!(matches!(result, Err(PlaceError::Content { .. })));
        assert!(names_in(folder.path()).is_empty());
    }

    /// A file on the same file system gets a second name and is not copied; what an earlier run left
    /// unfinished is cleared away.
    // req: CONTROL-9
    #[test]
    fn a_file_is_linked_and_leftovers_go() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let (store, path) = (folder.path().join("store"), folder.path().join("inbox"));
        fs::create_dir(&path).expect("a folder");
        fs::write(path.join(".warren-0.part"), b"half").expect("a file");
        fs::write(&store, b"whole").expect("a file");
        let inbox = Inbox::open(&path).expect("an inbox");
        let hash = *blake3::hash(b"whole").as_bytes();
        let place = || inbox.place_link(&name("w"), hash, 5, &store);
        let placed = place().expect("placed");
        assert_eq!(placed, Some(Placed::Linked(path.join("w"))));
        let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
        assert_eq!(inode(&store), inode(&path.join("w")));
        let again = place().expect("placed");
        assert_eq!(again, Some(Placed::AlreadyThere(path.join("w"))));
        assert_eq!(names_in(&path), ["w"]);
    }

    /// A numbered name keeps its extension and stays within the limit, also between characters.
    #[test]
    fn numbered_names_stay_within_the_limit() {
        assert_eq!(name("a.tar.gz").numbered(2), "a.tar-2.gz");
        assert_eq!(name(".profile").numbered(2), ".profile-2");
        let long = name(&"ü".repeat(127)).numbered(1000);
        assert!(
            long.len() <= NAME_BYTES_MAX && long.ends_with("-1000"),
            "{long}"
        );
    }
}
