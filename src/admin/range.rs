//! The `Range` header of HTTP: which bytes of a representation are asked for.
//!
//! Owns: reading one range. Several ranges in one request are answered with the whole, as RFC 9110
//! allows. Spec: RFC 9110 §14.

use std::ops::Range;

/// What a request asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// Everything.
    Whole,
    /// Bytes of one range, not empty.
    Part(Range<u64>),
    /// A range that lies behind the end: 416.
    Unsatisfiable,
}

impl Wanted {
    /// Reads a `Range` header for a representation of `size_bytes`; what cannot be read is ignored.
    pub(super) fn of(header: Option<&str>, size_bytes: u64) -> Self {
        let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
            return Self::Whole;
        };
        let Some((first, last)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
            return Self::Whole;
        };
        let (first, last) = (first.trim(), last.trim());
        let range = if first.is_empty() {
            match last.parse::<u64>() {
                Ok(count) => size_bytes.saturating_sub(count)..size_bytes,
                Err(_) => return Self::Whole,
            }
        } else {
            let Ok(first) = first.parse::<u64>() else {
                return Self::Whole;
            };
            let end = match last {
                "" => size_bytes,
                last => match last.parse::<u64>() {
                    Ok(last) if last >= first => last.saturating_add(1).min(size_bytes),
                    Ok(_) | Err(_) => return Self::Whole,
                },
            };
            first..end
        };
        if range.start >= range.end {
            Self::Unsatisfiable
        } else {
            Self::Part(range)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First, middle, open and last ranges, and those behind the end.
    #[test]
    fn one_range_is_read_as_the_standard_has_it() {
        let cases = [
            (None, Wanted::Whole),
            (Some("bytes=0-0"), Wanted::Part(0..1)),
            (Some("bytes=10-19"), Wanted::Part(10..20)),
            (Some("bytes=90-"), Wanted::Part(90..100)),
            (Some("bytes=90-500"), Wanted::Part(90..100)),
            (Some("bytes=-10"), Wanted::Part(90..100)),
            (Some("bytes=-500"), Wanted::Part(0..100)),
            (Some("bytes=100-"), Wanted::Unsatisfiable),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=5-4"), Wanted::Whole),
            (Some("bytes=0-1,5-6"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some("bytes=x-"), Wanted::Whole),
            (
                Some("bytes=18446744073709551615-18446744073709551615"),
                Wanted::Unsatisfiable,
            ),
        ];
        for (header, wanted) in cases {
            assert_eq!(Wanted::of(header, 100), wanted, "{header:?}");
        }
    }
}
