//! Rights that a client brings along in a token, instead of those that an account has.
//!
//! Owns: what scopes mean, and the rights of one login by token: until it expires, and after it was renewed. Knows no
//! signature and no clock: who verifies tokens is a [`TokenAuthority`], and when one expires the session is told.
//! Bounds: [`SCOPES_MAX`] for each token; [`PATTERN_BYTES_MAX`] for each part of one.
//! Spec: RabbitMQ's OAuth 2 plugin, "Scope-to-permission translation"; `spec/management.md` OAUTH-1 to OAUTH-5.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::permissions::Access;
use crate::broker::name::Name;

/// Scopes of one token; what is behind them is left out.
const SCOPES_MAX: usize = 1_024;
/// Longest part of a scope, in bytes; a longer one gives no right.
const PATTERN_BYTES_MAX: usize = 1_024;

/// Whoever can say whether a token is good.
pub trait TokenAuthority: fmt::Debug + Send + Sync {
    /// Looks at what came in the place of a password. `None` if it does not look like a token at all.
    /// May take its time.
    fn verify(&self, token: &[u8]) -> Option<Result<Token, TokenError>>;
}

/// Why a token is refused; for the log, since the client hears what all hear.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("token refused: {0}")]
pub struct TokenError(pub String);

/// A token whose signature and claims hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Token {
    /// Who it speaks for.
    pub user: String,
    /// Its scopes, without what stands before them for this broker.
    pub scopes: Vec<String>,
    /// Until when it holds, in seconds since 1970; `None` is for ever.
    pub expires_unix_s: Option<u64>,
}

impl Token {
    /// Tags that its scopes name, as in `tag:administrator`.
    pub(super) fn tags(&self) -> Vec<String> {
        let tags = self.scopes.iter();
        let tags = tags.filter_map(|scope| scope.strip_prefix("tag:"));
        tags.take(super::TAGS_MAX).map(str::to_owned).collect()
    }
}

/// The rights of one login by token.
#[derive(Debug)]
pub(super) struct TokenRights {
    state: ArcSwap<State>,
    /// Its time is over: it gives no right until it is renewed.
    is_expired: AtomicBool,
}

#[derive(Debug)]
struct State {
    scopes: Vec<Scope>,
    expires_unix_s: Option<u64>,
}

impl State {
    fn of(token: &Token) -> Self {
        let scopes = token.scopes.iter().take(SCOPES_MAX);
        Self {
            scopes: scopes.filter_map(|scope| Scope::parse(scope)).collect(),
            expires_unix_s: token.expires_unix_s,
        }
    }
}

impl TokenRights {
    pub(super) fn new(token: &Token) -> Self {
        Self {
            state: ArcSwap::from_pointee(State::of(token)),
            is_expired: AtomicBool::new(false),
        }
    }

    /// Until when the token holds, in seconds since 1970.
    pub(super) fn expires_unix_s(&self) -> Option<u64> {
        self.state.load().expires_unix_s
    }

    /// Another token takes the place of this one.
    pub(super) fn renew(&self, token: &Token) {
        self.state.store(std::sync::Arc::new(State::of(token)));
        self.is_expired.store(false, Ordering::Release);
    }

    /// Its time is over.
    pub(super) fn expire(&self) {
        self.is_expired.store(true, Ordering::Release);
    }

    fn is_good(&self) -> bool {
        !self.is_expired.load(Ordering::Acquire)
    }

    /// Whether any scope is about this vhost.
    // req: OAUTH-2
    pub(super) fn may_enter(&self, vhost: &Name) -> bool {
        let state = self.state.load();
        let mut scopes = state.scopes.iter();
        self.is_good() && scopes.any(|scope| scope.vhost.matches(vhost.as_bytes()))
    }

    // req: OAUTH-2
    pub(super) fn allow(&self, access: Access, vhost: &Name, name: &[u8]) -> bool {
        self.any_scope(access, vhost, name, |_| true)
    }

    // req: OAUTH-2
    pub(super) fn allow_topic(
        &self,
        access: Access,
        vhost: &Name,
        exchange: &[u8],
        routing_key: &[u8],
    ) -> bool {
        self.any_scope(access, vhost, exchange, |key| key.matches(routing_key))
    }

    fn any_scope(
        &self,
        access: Access,
        vhost: &Name,
        name: &[u8],
        is_key: impl Fn(&Wildcard) -> bool,
    ) -> bool {
        let state = self.state.load();
        let mut scopes = state.scopes.iter();
        self.is_good()
            && scopes.any(|scope| {
                scope.access == access
                    && scope.vhost.matches(vhost.as_bytes())
                    && scope.name.matches(name)
                    && is_key(&scope.routing_key)
            })
    }
}

/// One scope: `configure:VHOST/NAME/ROUTING-KEY`, the last part left out for any.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Scope {
    access: Access,
    vhost: Wildcard,
    name: Wildcard,
    routing_key: Wildcard,
}

impl Scope {
    /// What is no such scope gives no right.
    fn parse(text: &str) -> Option<Self> {
        let (access, object) = text.split_once(':')?;
        let access = match access {
            "configure" => Access::Configure,
            "write" => Access::Write,
            "read" => Access::Read,
            _ => return None,
        };
        let mut parts = object.splitn(3, '/').map(Wildcard::parse);
        Some(Self {
            access,
            vhost: parts.next()??,
            name: parts.next()??,
            routing_key: match parts.next() {
                Some(key) => key?,
                None => Wildcard(vec![Vec::new(), Vec::new()]),
            },
        })
    }
}

/// A pattern in which `*` stands for anything: what must stand between those, the first at the beginning and the last
/// at the end.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Wildcard(Vec<Vec<u8>>);

impl Wildcard {
    /// `%2F` and its like stand for one octet each, which is never a star.
    fn parse(text: &str) -> Option<Self> {
        if text.len() > PATTERN_BYTES_MAX {
            return None;
        }
        text.split('*')
            .map(unescape)
            .collect::<Option<_>>()
            .map(Self)
    }

    /// In time linear in the name for each star, at the worst.
    fn matches(&self, name: &[u8]) -> bool {
        let [first, between @ .., last] = &self.0[..] else {
            return self.0.first().is_some_and(|whole| whole == name);
        };
        let Some(rest) = name.strip_prefix(&first[..]) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(&last[..]) else {
            return false;
        };
        for part in between.iter().filter(|part| !part.is_empty()) {
            let found = rest.windows(part.len()).position(|window| window == part);
            let Some(at) = found else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

/// Undoes percent-encoding; none if a code is none.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut octets = text.bytes();
    let mut unescaped = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        unescaped.push(match octet {
            b'%' => {
                let digit = |octet: u8| char::from(octet).to_digit(16);
                let (high, low) = (digit(octets.next()?)?, digit(octets.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            octet => octet,
        });
    }
    Some(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(scopes: &[&str]) -> TokenRights {
        TokenRights::new(&Token {
            user: "u".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            expires_unix_s: None,
        })
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("%2F", "/", true),
            ("%2a", "*", true),
            ("%2a", "x", false),
        ] {
            let wildcard = Wildcard::parse(pattern).expect(pattern);
            assert_eq!(
                wildcard.matches(name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
        assert_eq!(Wildcard::parse("%zz"), None);
        assert_eq!(Wildcard::parse("%2"), None);
    }

    /// A scope gives one right, at what it names, in the vhosts that it names.
    // req: OAUTH-2
    #[test]
    fn scopes_are_rights() {
        let granted = rights(&[
            "read:%2F/q-*",
            "write:v*/x/a.*",
            "configure:*/own",
            "grow:*/*",
            "read:broken",
            "tag:monitoring",
        ]);
        let (root, v1) = (Name::from("/"), Name::from("v1"));
        assert!(granted.allow(Access::Read, &root, b"q-1"));
        assert!(!granted.allow(Access::Read, &root, b"other"));
        assert!(!granted.allow(Access::Write, &root, b"q-1"));
        assert!(!granted.allow(Access::Read, &v1, b"q-1"));
        assert!(granted.allow(Access::Configure, &v1, b"own"));
        assert!(granted.allow(Access::Write, &v1, b"x"));
        assert!(granted.allow_topic(Access::Write, &v1, b"x", b"a.b"));
        assert!(!granted.allow_topic(Access::Write, &v1, b"x", b"b.a"));
        assert!(granted.allow_topic(Access::Read, &root, b"q-1", b"any"));
        assert!(granted.may_enter(&root) && granted.may_enter(&v1));
        let few = rights(&["read:v/q"]);
        assert!(!few.may_enter(&root));
    }

    /// An expired token gives no right, and one that takes its place gives its own.
    // req: OAUTH-4
    // req: OAUTH-5
    #[test]
    fn rights_end_and_are_renewed() {
        let rights = rights(&["read:*/*"]);
        let vhost = Name::from("/");
        assert!(rights.allow(Access::Read, &vhost, b"q"));
        rights.expire();
        assert!(!rights.allow(Access::Read, &vhost, b"q"));
        assert!(!rights.may_enter(&vhost));
        rights.renew(&Token {
            user: "u".to_owned(),
            scopes: vec!["write:*/*".to_owned()],
            expires_unix_s: Some(9),
        });
        assert!(!rights.allow(Access::Read, &vhost, b"q"));
        assert!(rights.allow(Access::Write, &vhost, b"q"));
        assert_eq!(rights.expires_unix_s(), Some(9));
    }
}
