//! The terminal of `warren top`: raw keys in, whole pages out.
//!
//! Owns: the terminal's mode, which is put back when this goes, however it goes.

use std::collections::VecDeque;
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
    /// Keys that came together with others.
    typed: VecDeque<Key>,
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
            typed: VecDeque::new(),
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
        if let Some(key) = self.typed.pop_front() {
            return Ok(Some(key));
        }
        let input = io::stdin();
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let ready = poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 64];
        match input.lock().read(&mut bytes)? {
            0 => Ok(Some(Key::Char('q'))),
            count => {
                self.typed = read_keys(bytes.get(..count).unwrap_or_default());
                Ok(self.typed.pop_front())
            }
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

/// The keys that a terminal sent, as many as came at once.
fn read_keys(mut bytes: &[u8]) -> VecDeque<Key> {
    let mut keys = VecDeque::new();
    while let Some((key, length)) = read_key(bytes) {
        keys.extend(key);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    keys
}

/// The first key and how many bytes it takes; no key for what means nothing here, nothing at all at the end.
fn read_key(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let found = match bytes {
        [] => return None,
        [0x1b, b'[', rest @ ..] => {
            // Parameters, then the letter that says what it is.
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
            let length = 3 + end.unwrap_or(rest.len());
            let key = match rest {
                [b'A', ..] | [b'5', b'~', ..] => Some(Key::Up),
                [b'B', ..] | [b'6', b'~', ..] => Some(Key::Down),
                _ => None,
            };
            (key, length)
        }
        [0x1b, b'O', _, ..] => (None, 3),
        // Ctrl-C and Ctrl-D end like Escape.
        [0x1b | 0x03 | 0x04, ..] => (Some(Key::Escape), 1),
        [b'\t', ..] => (Some(Key::Tab), 1),
        [b'\r' | b'\n', ..] => (Some(Key::Enter), 1),
        [0x08 | 0x7f, ..] => (Some(Key::Backspace), 1),
        _ => {
            let valid = match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => {
                    let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                    std::str::from_utf8(valid).unwrap_or_default()
                }
            };
            match valid.chars().next() {
                Some(char) => (
                    (!char.is_control()).then_some(Key::Char(char)),
                    char.len_utf8(),
                ),
                None => (None, 1),
            }
        }
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One key or many at once, as when somebody types fast or pastes.
    #[test]
    fn keys_are_read_from_what_terminals_send() {
        for (bytes, keys) in [
            (&b"q"[..], &[Key::Char('q')][..]),
            (b"\x1b[A", &[Key::Up]),
            (b"\x1b[6~s", &[Key::Down, Key::Char('s')]),
            (b"\x1b[1;5C", &[]),
            (b"\x1b", &[Key::Escape]),
            (b"\x1bOPq", &[Key::Char('q')]),
            (b"\x03", &[Key::Escape]),
            (b"b\x7f\r", &[Key::Char('b'), Key::Backspace, Key::Enter]),
            ("ä/".as_bytes(), &[Key::Char('ä'), Key::Char('/')]),
            (b"\xffq", &[Key::Char('q')]),
            (b"", &[]),
        ] {
            assert_eq!(read_keys(bytes), keys, "{bytes:?}");
        }
    }
}
