//! The keys that tokens are signed with.
//!
//! Owns: what was read from files and from the JWKS' URL, and when it is read again: for a key that is not known, but
//! not more often than the settings say, and by one caller at a time.
//! Bounds: [`KEYS_MAX`]; documents as in `fetch.rs`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use parking_lot::Mutex;

use super::fetch::{FetchError, fetch};
use crate::config::OAuthSettings;
use crate::server::slowly;

/// Longest wait for another login's look at the keys.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Keys of one set; what is behind them is left out.
const KEYS_MAX: usize = 256;
/// Longest file of keys, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("'{0}' is not ID=FILE")]
    Pair(String),
    #[error("the key {}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the key {}: {reason}", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("the keys at {url}: {source}")]
    Fetch { url: String, source: FetchError },
    #[error("what stands at {place} are no keys (JWKS): {reason}")]
    NotKeys { place: String, reason: String },
}

/// Keys by their names.
type Keys = HashMap<String, Arc<DecodingKey>>;

/// All keys that are known.
#[derive(Debug)]
pub(super) struct KeyRing {
    /// From files of their own: they stay.
    own: KeysOf,
    url: Option<(String, Option<PathBuf>)>,
    file: Option<PathBuf>,
    default_key: Option<String>,
    refresh_wait: Duration,
    /// From the URL and the set's file.
    fetched: ArcSwap<KeysOf>,
    /// When they were looked at last; held by who looks.
    looked_at: Mutex<Option<Instant>>,
}

/// Without what they are: some are secrets.
#[derive(Clone, Default)]
struct KeysOf(Keys);

impl std::fmt::Debug for KeysOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl KeyRing {
    /// Reads the keys that stand in files; those at a URL are fetched when the first token asks for one.
    pub(super) fn new(settings: &OAuthSettings) -> Result<Self, KeysError> {
        let mut own = Keys::new();
        for pair in &settings.signing_keys {
            let pair = pair.split_once('=');
            let (id, path) =
                pair.ok_or_else(|| KeysError::Pair(settings.signing_keys.join(" ")))?;
            own.insert(id.to_owned(), Arc::new(pem_key(Path::new(path))?));
        }
        let url = settings.jwks_url.clone();
        let ring = Self {
            own: KeysOf(own),
            url: url.map(|url| (url, settings.jwks_ca.clone())),
            file: settings.jwks_file.clone(),
            default_key: settings.default_key.clone(),
            refresh_wait: settings.refresh_wait,
            fetched: ArcSwap::default(),
            looked_at: Mutex::default(),
        };
        if let Some(path) = &ring.file {
            ring.fetched.store(Arc::new(KeysOf(read_set(path)?)));
        }
        Ok(ring)
    }

    /// The key of this name; without a name the default one, or the only one there is. May take its time when the
    /// name is a new one.
    // req: OAUTH-3
    pub(super) fn find(&self, id: Option<&str>, now: Instant) -> Option<Arc<DecodingKey>> {
        let id = id.or(self.default_key.as_deref());
        if let Some(key) = self.known(id) {
            return Some(key);
        }
        if self.url.is_none() && self.file.is_none() {
            return None;
        }
        {
            // Whoever waited for another's look has its result below; a server of keys that is slow must not hold up
            // other logins for long.
            let mut looked_at = self.looked_at.try_lock_for(LOOK_WAIT_MAX)?;
            let waits =
                looked_at.is_some_and(|at| now.saturating_duration_since(at) < self.refresh_wait);
            if !waits {
                *looked_at = Some(now);
                slowly(|| self.refresh());
            }
        }
        self.known(id)
    }

    fn known(&self, id: Option<&str>) -> Option<Arc<DecodingKey>> {
        let fetched = self.fetched.load();
        match id {
            Some(id) => self.own.0.get(id).or_else(|| fetched.0.get(id)).cloned(),
            None => {
                let mut all = self.own.0.values().chain(fetched.0.values());
                let only = all.next()?;
                all.next().is_none().then(|| Arc::clone(only))
            }
        }
    }

    /// Reads file and URL again; what cannot be read leaves what was there.
    fn refresh(&self) {
        let mut keys = Keys::new();
        let mut is_whole = true;
        let file = self.file.as_deref().map(read_set);
        let url = self.url.as_ref().map(|(url, authorities)| {
            let source = fetch(url, authorities.as_deref());
            let document = source.map_err(|source| KeysError::Fetch {
                url: url.clone(),
                source,
            })?;
            parse_set(&document, url)
        });
        for read in [file, url].into_iter().flatten() {
            match read {
                Ok(more) => keys.extend(more),
                Err(error) => {
                    is_whole = false;
                    tracing::warn!(%error, "keys of tokens cannot be read");
                }
            }
        }
        if !is_whole {
            let before = self.fetched.load();
            for (id, key) in &before.0 {
                keys.entry(id.clone()).or_insert_with(|| Arc::clone(key));
            }
        }
        tracing::info!(key_count = keys.len(), "keys of tokens are read");
        self.fetched.store(Arc::new(KeysOf(keys)));
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, KeysError> {
    use std::io::Read as _;
    let failed = |source| KeysError::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut file = file.take(FILE_BYTES_MAX);
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A public key as PEM, of any kind that tokens are signed with.
fn pem_key(path: &Path) -> Result<DecodingKey, KeysError> {
    let pem = read_file(path)?;
    let kinds = [
        DecodingKey::from_rsa_pem,
        DecodingKey::from_ec_pem,
        DecodingKey::from_ed_pem,
    ];
    let mut reason = String::new();
    for read in kinds {
        match read(&pem) {
            Ok(key) => return Ok(key),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(KeysError::Key {
        path: path.to_owned(),
        reason,
    })
}

fn read_set(path: &Path) -> Result<Keys, KeysError> {
    parse_set(&read_file(path)?, &path.display().to_string())
}

/// A set of keys; those of a kind that is not known are left out, and a single key without a name is the default's.
fn parse_set(document: &[u8], place: &str) -> Result<Keys, KeysError> {
    let not_keys = |reason: String| KeysError::NotKeys {
        place: place.to_owned(),
        reason,
    };
    let value: serde_json::Value =
        serde_json::from_slice(document).map_err(|error| not_keys(error.to_string()))?;
    let listed = value.get("keys").and_then(serde_json::Value::as_array);
    let listed = listed.ok_or_else(|| not_keys("there is no list of keys".to_owned()))?;
    let mut keys = Keys::new();
    for (index, value) in listed.iter().take(KEYS_MAX).enumerate() {
        let set = serde_json::json!({ "keys": [value] });
        let set: Result<JwkSet, _> = serde_json::from_value(set);
        let Some(jwk) = set.ok().and_then(|set| set.keys.into_iter().next()) else {
            tracing::debug!(place, index, "a key of a kind that is not known");
            continue;
        };
        match DecodingKey::from_jwk(&jwk) {
            Ok(key) => drop(keys.insert(name_of(&jwk, index), Arc::new(key))),
            Err(error) => tracing::warn!(place, index, %error, "no usable key"),
        }
    }
    Ok(keys)
}

fn name_of(jwk: &Jwk, index: usize) -> String {
    let name = jwk.common.key_id.clone();
    name.unwrap_or_else(|| format!("#{index}"))
}
