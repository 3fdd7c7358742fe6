//! Logins by OAuth 2 tokens: JSON web tokens in the place of passwords.
//!
//! Owns: which tokens are good: their signature, whom they are for, their time; and what their claims are to the broker,
//! which alone decides what scopes allow. Keys are `keys.rs`' business.
//! Bounds: [`TOKEN_BYTES_MAX`].
//! Spec: RabbitMQ's OAuth 2 plugin; RFC 7519, RFC 7517; `spec/management.md` OAUTH-1 to OAUTH-7.

mod fetch;
mod keys;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use crate::broker::{Token, TokenAuthority, TokenError};
use crate::config::OAuthSettings;

use keys::KeyRing;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// How long behind its beginning (`nbf`) a clock may be, in seconds.
const CLOCK_SKEW_S: u64 = 60;

/// Why tokens cannot be taken with these settings.
#[derive(Debug, thiserror::Error)]
#[error("oauth: {0}")]
pub struct OAuthError(String);

/// Says which tokens are good.
#[derive(Debug)]
pub(super) struct OAuth {
    resource_server_id: String,
    scope_prefix: String,
    algorithms: Vec<Algorithm>,
    settings: OAuthSettings,
    keys: KeyRing,
}

impl OAuth {
    /// By these settings, if they name the broker; reads the keys that stand in files.
    pub(super) fn new(settings: &OAuthSettings) -> Result<Option<Self>, OAuthError> {
        let Some(resource_server_id) = settings.resource_server_id.clone() else {
            return Ok(None);
        };
        let algorithms = settings.algorithms.iter().map(|name| {
            let algorithm = serde_json::from_value(Value::from(name.as_str()));
            algorithm.map_err(|_| OAuthError(format!("there is no algorithm '{name}'")))
        });
        let scope_prefix = settings.scope_prefix.clone();
        Ok(Some(Self {
            scope_prefix: scope_prefix.unwrap_or_else(|| format!("{resource_server_id}.")),
            resource_server_id,
            algorithms: algorithms.collect::<Result<_, _>>()?,
            keys: KeyRing::new(settings).map_err(|error| OAuthError(error.to_string()))?,
            settings: settings.clone(),
        }))
    }

    // req: OAUTH-1
    fn check(&self, token: &[u8], unix_s: u64) -> Result<Token, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        let is_taken = self.algorithms.is_empty() || self.algorithms.contains(&header.alg);
        if !is_taken {
            return Err(format!("its signature is {:?}", header.alg));
        }
        let key = self.keys.find(header.kid.as_deref(), Instant::now());
        let key = key.ok_or_else(|| match &header.kid {
            Some(id) => format!("its key '{}' is not known", printable(id)),
            None => "it names no key".to_owned(),
        })?;
        // A public key must not pass for a shared secret, whatever the token says of itself.
        if !key.family().algorithms().contains(&header.alg) {
            return Err("its key is of another kind".to_owned());
        }
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        // Times and audience are looked at below, as RabbitMQ does.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        let claims = decoded.map_err(|error| error.to_string())?.claims;
        self.read(&claims, unix_s)
    }

    fn read(&self, claims: &Map<String, Value>, unix_s: u64) -> Result<Token, String> {
        let expires_unix_s = time(claims, "exp")?;
        if expires_unix_s.is_some_and(|at| at <= unix_s) {
            return Err("it has expired".to_owned());
        }
        if time(claims, "nbf")?.is_some_and(|at| at > unix_s.saturating_add(CLOCK_SKEW_S)) {
            return Err("its time has not come".to_owned());
        }
        if self.settings.verify_audience {
            let audience = words(claims.get("aud"));
            if !audience.contains(&self.resource_server_id.as_str()) {
                return Err("it is for others (aud)".to_owned());
            }
        }
        let more = self.settings.additional_scopes_key.as_deref();
        let more = more.and_then(|key| claims.get(key));
        // Some write a scope for each broker that it is for.
        let more = match more {
            Some(Value::Object(of)) => of.get(&self.resource_server_id),
            more => more,
        };
        let scopes = words(claims.get("scope")).into_iter().chain(words(more));
        let scopes = scopes.filter_map(|scope| scope.strip_prefix(self.scope_prefix.as_str()));
        Ok(Token {
            user: self.user(claims)?,
            scopes: scopes.map(str::to_owned).collect(),
            expires_unix_s,
        })
    }

    /// Who it speaks for, by its claims: a name that the client could choose would let it pass for another in limits,
    /// logs and `user-id`.
    // req: OAUTH-7
    fn user(&self, claims: &Map<String, Value>) -> Result<String, String> {
        let preferred = self.settings.username_claims.iter().map(String::as_str);
        let names = preferred.chain(["sub", "client_id"]);
        let mut found = names.filter_map(|name| claims.get(name)?.as_str());
        let name = found.find(|name| !name.is_empty());
        name.map(str::to_owned)
            .ok_or_else(|| "it does not say whose it is (sub, client_id)".to_owned())
    }
}

impl TokenAuthority for OAuth {
    fn verify(&self, token: &[u8]) -> Option<Result<Token, TokenError>> {
        let dots = token.iter().filter(|octet| **octet == b'.').count();
        // Every header begins so: it is an object.
        if dots != 2 || !token.starts_with(b"eyJ") {
            return None;
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Some(Err(TokenError("it is too long".to_owned())));
        }
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let checked = self.check(token, since.as_secs());
        Some(checked.map_err(TokenError))
    }
}

/// A claim that is a time, in seconds since 1970.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let whole = value.as_u64();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            let time = whole.or_else(|| value.as_f64().map(|seconds| seconds as u64));
            time.map(Some).ok_or_else(|| format!("{name} is no time"))
        }
    }
}

/// A claim that is a list, or words with spaces between them.
fn words(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(text)) => text.split(' ').filter(|word| !word.is_empty()).collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What a client wrote, for the log.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(80)
        .collect()
}
