//! The terminal of `warren top`: raw keys in, whole pages out.
//!
//! Owns: the terminal's mode, which is put back when this goes, however it goes.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::view::{Line, Tone};

/// Columns and rows, if the terminal does not say.
const SIZE_DEFAULT: (usize, usize) = (80, 24);
/// Another screen, no cursor, no wrapping; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// A key that was pressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Key {
    Backspace,
    Char(char),
    Down,
    Enter,
    Escape,
    Tab,
    Up,
}

/// The terminal in raw mode.
pub(super) struct Screen {
    before: Termios,
    has_colors: bool,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let screen = Self {
            before,
            has_colors: super::super::has_colors(&io::stdout()),
        };
        let mut output = io::stdout().lock();
        output.write_all(ENTER.as_bytes())?;
        output.flush()?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => SIZE_DEFAULT,
        }
    }

    /// Draws a page over the one before; one write, so that nothing flickers.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut page = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                page.push_str("\r\n");
            }
            let code = match (self.has_colors, line.tone) {
                (_, Tone::Plain) => "",
                // Seen without colours too.
                (_, Tone::Heading) => "\x1b[7m",
                (true, Tone::Good) => "\x1b[32m",
                (true, Tone::Faint) => "\x1b[2m",
                (true, Tone::Alarm) => "\x1b[1;31m",
                (false, Tone::Good | Tone::Faint | Tone::Alarm) => "",
            };
            page.push_str(code);
            page.push_str(&line.text);
            if !code.is_empty() {
                page.push_str("\x1b[0m");
            }
            page.push_str("\x1b[K");
        }
        page.push_str("\x1b[J");
        let mut output = io::stdout().lock();
        output.write_all(page.as_bytes())?;
        output.flush()
    }

    /// Waits for a key; none if none comes in time, or the window changed its size.
    pub(super) fn key(&mut self, wait: Duration) -> io::Result<Option<Key>> {
        let input = io::stdin();
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let ready = poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 16];
        match input.lock().read(&mut bytes)? {
            0 => Ok(Some(Key::Char('q'))),
            count => Ok(read_key(bytes.get(..count).unwrap_or_default())),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut output = io::stdout().lock();
        // Nobody is left who could hear of it.
        let _ = output.write_all(LEAVE.as_bytes());
        let _ = output.flush();
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The first key of what a terminal sent.
fn read_key(bytes: &[u8]) -> Option<Key> {
    match bytes {
        [0x1b, b'[', b'A' | b'5', ..] => Some(Key::Up),
        [0x1b, b'[', b'B' | b'6', ..] => Some(Key::Down),
        [0x1b] => Some(Key::Escape),
        [0x1b, ..] => None,
        // Ctrl-C and Ctrl-D.
        [0x03 | 0x04, ..] => Some(Key::Escape),
        [b'\t', ..] => Some(Key::Tab),
        [b'\r' | b'\n', ..] => Some(Key::Enter),
        [0x08 | 0x7f, ..] => Some(Key::Backspace),
        _ => {
            let valid = match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
            };
            let first = valid.chars().next()?;
            (!first.is_control()).then_some(Key::Char(first))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_what_terminals_send() {
        for (bytes, key) in [
            (&b"q"[..], Some(Key::Char('q'))),
            (b"\x1b[A", Some(Key::Up)),
            (b"\x1b[6~", Some(Key::Down)),
            (b"\x1b", Some(Key::Escape)),
            (b"\x1bOP", None),
            (b"\x03", Some(Key::Escape)),
            (b"\x7f", Some(Key::Backspace)),
            ("ä".as_bytes(), Some(Key::Char('ä'))),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(read_key(bytes), key, "{bytes:?}");
        }
    }
}
