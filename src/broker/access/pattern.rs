//! Regular expressions over names, as permissions and policies write them.
//!
//! Owns: what a pattern may be and what it matches. As in RabbitMQ a pattern is looked for anywhere in the
//! name, octet by octet, unless it is anchored, and the empty pattern means `^$`.
//! Matching takes time linear in the name, whatever the pattern: so there are no back references, and of
//! look-aheads only those at the very beginning, which patterns like `^(?!amq\.).*` are full of; each of
//! those is an expression of its own here.
//! Bounds: [`PATTERN_BYTES_MAX`], [`COMPILED_BYTES_MAX`], [`LOOK_AHEADS_MAX`].
//! Spec: Erlang's `re` with its default options, as far as it goes.

use regex::bytes::{Regex, RegexBuilder};

/// Longest pattern, in bytes; beyond it the pattern is refused.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Memory that one compiled expression may take, in bytes; beyond it the pattern is refused.
const COMPILED_BYTES_MAX: usize = 256 * 1_024;
/// Memory that one expression may use while it matches, in bytes; with less it only gets slower.
const MATCHING_BYTES_MAX: usize = 64 * 1_024;
/// Look-aheads at the beginning of one pattern.
const LOOK_AHEADS_MAX: usize = 8;

/// A pattern that is no regular expression of the kind that is understood here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a usable regular expression: {reason}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A compiled pattern; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// `.*` and its like.
    All,
    /// The empty pattern, or `^$`: only the empty name, which nothing has.
    Empty,
    /// Everything else.
    Search {
        /// What must and what must not be found at the beginning.
        ahead: Vec<(Wanted, Regex)>,
        rest: Regex,
    },
}

/// What a look-ahead asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    Match,
    NoMatch,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If it is no regular expression, or takes too much memory.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let failed = |reason: String| PatternError {
            pattern: text.to_owned(),
            reason,
        };
        if text.len() > PATTERN_BYTES_MAX {
            let reason = format!("longer than {PATTERN_BYTES_MAX} bytes");
            return Err(failed(reason));
        }
        let matcher = match text {
            ".*" | "^.*" | "^.*$" | "^" | "$" => Matcher::All,
            "" | "^$" => Matcher::Empty,
            _ => Self::compile(text).map_err(failed)?,
        };
        Ok(Self {
            text: text.to_owned(),
            matcher,
        })
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            text: ".*".to_owned(),
            matcher: Matcher::All,
        }
    }

    /// Nothing that has a name.
    #[must_use]
    pub fn none() -> Self {
        Self {
            text: "^$".to_owned(),
            matcher: Matcher::Empty,
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is found in `name`.
    // req: RIGHT-1
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        match &self.matcher {
            Matcher::All => true,
            Matcher::Empty => name.is_empty(),
            Matcher::Search { ahead, rest } => {
                let holds = |(wanted, regex): &(Wanted, Regex)| {
                    regex.is_match(name) == (*wanted == Wanted::Match)
                };
                ahead.iter().all(holds) && rest.is_match(name)
            }
        }
    }

    fn compile(text: &str) -> Result<Matcher, String> {
        let Some(inner) = text.strip_prefix('^').filter(|inner| is_ahead(inner)) else {
            let (ahead, rest) = (Vec::new(), expression(text)?);
            return Ok(Matcher::Search { ahead, rest });
        };
        // `^(?!a)b|c` is `(^(?!a)b)|c`: what stands before the bar does not reach behind it.
        if has_bar(inner) {
            return Err("a look-ahead beside '|' outside of parentheses".to_owned());
        }
        let mut ahead = Vec::new();
        let mut rest = inner;
        while is_ahead(rest) {
            if ahead.len() == LOOK_AHEADS_MAX {
                return Err(format!("more than {LOOK_AHEADS_MAX} look-aheads"));
            }
            let end = closing(rest).ok_or("a parenthesis is not closed")?;
            let wanted = match rest.starts_with("(?=") {
                true => Wanted::Match,
                false => Wanted::NoMatch,
            };
            let body = rest.get("(?!".len()..end).unwrap_or_default();
            ahead.push((wanted, expression(&format!("^(?:{body})"))?));
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        let rest = expression(&format!("^(?:{rest})"))?;
        Ok(Matcher::Search { ahead, rest })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Text as a pattern that matches nothing but itself.
pub(crate) fn literal(text: &str) -> String {
    regex::escape(text)
}

fn expression(text: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(MATCHING_BYTES_MAX)
        .build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it takes too much memory".to_owned(),
        // The last line says what is wrong, those before show where.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    })
}

fn is_ahead(text: &str) -> bool {
    text.starts_with("(?!") || text.starts_with("(?=")
}

/// Where the parenthesis that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    outside_of_classes(text).find_map(|(at, octet)| {
        match octet {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Whether there is a `|` outside of all parentheses.
fn has_bar(text: &str) -> bool {
    let mut depth = 0_usize;
    outside_of_classes(text).any(|(_, octet)| {
        match octet {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        octet == b'|' && depth == 0
    })
}

/// The octets that may mean something by themselves: neither escaped nor within brackets.
fn outside_of_classes(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut escaped, mut class_octets) = (false, None);
    text.bytes().enumerate().filter(move |(_, octet)| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        if *octet == b'\\' {
            escaped = true;
            return false;
        }
        match class_octets {
            // A bracket that comes first within brackets, or behind `^`, is one of them.
            Some(octets) => {
                let closes = *octet == b']' && octets > 0;
                let is_negation = *octet == b'^' && octets == 0;
                class_octets = match (closes, is_negation) {
                    (true, _) => None,
                    (false, true) => Some(0),
                    (false, false) => Some(octets + 1),
                };
                false
            }
            None if *octet == b'[' => {
                class_octets = Some(0_usize);
                false
            }
            None => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let compiled = Pattern::new(pattern).expect(pattern);
        for name in matching {
            assert!(compiled.matches(name.as_bytes()), "{pattern} on {name:?}");
        }
        for name in other {
            assert!(!compiled.matches(name.as_bytes()), "{pattern} on {name:?}");
        }
    }

    /// Unanchored unless it says so, as `re:run/3` searches.
    // req: RIGHT-1
    #[test]
    fn a_pattern_is_looked_for_anywhere() {
        check(".*", &["", "a"], &[]);
        check("", &[""], &["a"]);
        check("^$", &[""], &["a"]);
        check("b", &["b", "abc"], &["ac"]);
        check("^own$", &["own"], &["owner", "down"]);
        check("^in-.*", &["in-", "in-1"], &["main-1"]);
        check("^(a|b)\\.[0-9]{2}$", &["a.12"], &["c.12", "ax12"]);
        check("^amq.default$", &["amq.default", "amq_default"], &["amq"]);
        check("\\.log$", &["x.log"], &["xlog", "x.log.1"]);
    }

    /// The look-aheads that people write to leave out the broker's own names.
    #[test]
    fn look_aheads_at_the_beginning_are_understood() {
        check("^(?!amq\\.).*", &["q", "my.amq."], &["amq.gen-1"]);
        check("^(?!amq\\.)(?!tmp).*$", &["q"], &["amq.x", "tmp1"]);
        check("^(?!a[)(]b|c)x?", &["x", "b"], &["a(b", "c"]);
        check(
            "^(?=.*live)(?!test).+",
            &["is-live"],
            &["test-live", "dead"],
        );
        check("^(?!(a|b)$)[^]a]*$", &["c", ""], &["a", "b", "ca", "]"]);
    }

    /// What cannot be matched in linear time, is broken or is too large is refused with the reason.
    #[test]
    fn unusable_patterns_are_refused() {
        for (pattern, reason) in [
            ("(", "unclosed group"),
            ("[a", "unclosed character class"),
            ("a**(?<", "error"),
            ("(a)\\1", "backreferences are not supported"),
            ("a(?!b)", "look-around"),
            ("^(?!a", "not closed"),
            ("^(?!a)b|c", "look-ahead beside"),
            ("((a{100}){100}){100}", "too much memory"),
        ] {
            let error = Pattern::new(pattern).expect_err(pattern);
            assert_eq!(error.pattern, pattern);
            let is_reason = error.reason.contains(reason) || reason == "error";
            assert!(is_reason, "{pattern}: {}", error.reason);
        }
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        assert!(Pattern::new(&long).is_err());
        assert!(Pattern::new(&long[1..]).is_ok());
    }

    /// A pattern that takes exponential time elsewhere takes none here.
    #[test]
    fn a_hostile_pattern_is_harmless() {
        let name = "a".repeat(255);
        check("^(a+)+$", &[&name], &[&format!("{name}b")]);
    }

    #[test]
    fn names_need_not_be_text() {
        let pattern = Pattern::new("^.b$").expect("a pattern");
        assert!(pattern.matches(b"\xffb"));
    }
}
