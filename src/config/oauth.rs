//! Settings of logins by OAuth 2 tokens.

use std::path::PathBuf;
use std::time::Duration;

/// Which tokens let somebody in, and where their keys are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OAuthSettings {
    /// The broker's name among those whom tokens are for; without it no token lets anybody in.
    pub resource_server_id: Option<String>,
    /// What stands before scopes that are meant for this broker; `None` is the name above and a point.
    pub scope_prefix: Option<String>,
    /// Whether a token must name this broker among those whom it is for (`aud`).
    pub verify_audience: bool,
    /// Where keys are found (JWKS), `http` or `https`.
    pub jwks_url: Option<String>,
    /// Authorities of that place's certificate, as PEM; `None` are the system's.
    pub jwks_ca: Option<PathBuf>,
    /// A file with keys (JWKS).
    pub jwks_file: Option<PathBuf>,
    /// Keys in files of their own, as `ID=FILE` with PEM in them.
    pub signing_keys: Vec<String>,
    /// Which key is meant by a token that names none; `None` is the only one there is.
    pub default_key: Option<String>,
    /// Least time between two looks at the URL or the file for a key that is not known.
    pub refresh_wait: Duration,
    /// Signatures that are taken, as in `RS256`; empty is all that fit a key.
    pub algorithms: Vec<String>,
    /// Claims that name the user, before `sub` and `client_id`.
    pub username_claims: Vec<String>,
    /// A claim whose scopes count too.
    pub additional_scopes_key: Option<String>,
}

impl Default for OAuthSettings {
    fn default() -> Self {
        Self {
            resource_server_id: None,
            scope_prefix: None,
            verify_audience: true,
            jwks_url: None,
            jwks_ca: None,
            jwks_file: None,
            signing_keys: Vec::new(),
            default_key: None,
            refresh_wait: Duration::from_secs(30),
            algorithms: Vec::new(),
            username_claims: Vec::new(),
            additional_scopes_key: None,
        }
    }
}
