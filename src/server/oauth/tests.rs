//! Tokens that are good and tokens that are not, with keys of each kind.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const SECRET: &[u8] = b"a shared secret of some length..";
const NOW: u64 = 1_800_000_000;

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// An authority with the shared secret above, by the name `k`.
fn authority(change: impl FnOnce(&mut OAuthSettings)) -> (OAuth, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("keys.json");
    let keys = json!({ "keys": [
        { "kty": "oct", "kid": "k", "alg": "HS256", "k": encoded(SECRET) },
        { "kty": "strange", "kid": "s" },
    ]});
    std::fs::write(&path, keys.to_string()).expect("a file");
    let mut settings = OAuthSettings {
        resource_server_id: Some("rabbitmq".to_owned()),
        jwks_file: Some(path),
        ..OAuthSettings::default()
    };
    change(&mut settings);
    let oauth = OAuth::new(&settings).expect("usable").expect("it is on");
    (oauth, dir)
}

fn token(header: &Header, claims: &Value) -> Vec<u8> {
    let key = EncodingKey::from_secret(SECRET);
    encode(header, claims, &key).expect("a token").into_bytes()
}

fn header(kid: Option<&str>) -> Header {
    Header {
        kid: kid.map(str::to_owned),
        ..Header::new(Algorithm::HS256)
    }
}

/// Each claim that does not hold refuses the token, and says so for the log.
// req: OAUTH-1
// req: OAUTH-7
#[test]
fn claims_must_hold() {
    let (oauth, _dir) = authority(|_| {});
    let good = json!({
        "aud": ["rabbitmq", "x"], "exp": NOW + 1, "sub": "alice",
        "scope": "rabbitmq.read:*/* other.write:*/* rabbitmq.tag:administrator",
    });
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        oauth.check(&token(&header(Some("k")), &claims), NOW)
    };
    let read = with("x", Value::Null).expect("all of it holds");
    assert_eq!(read.user, "alice");
    assert_eq!(read.scopes, ["read:*/*", "tag:administrator"]);
    assert_eq!(read.expires_unix_s, Some(NOW + 1));
    assert!(with("aud", json!("x rabbitmq")).is_ok());
    assert!(with("exp", Value::Null).is_ok_and(|token| token.expires_unix_s.is_none()));
    assert!(with("exp", json!(NOW + 1)).is_ok());
    assert!(with("client_id", json!("service")).is_ok_and(|token| token.user == "alice"));
    for (key, value, reason) in [
        ("aud", json!("rabbitmq-other"), "others"),
        ("aud", Value::Null, "others"),
        ("exp", json!(NOW), "expired"),
        ("exp", json!("soon"), "no time"),
        ("nbf", json!(NOW + 61), "not come"),
        ("sub", Value::Null, "whose"),
        ("sub", json!(""), "whose"),
    ] {
        let error = with(key, value).expect_err(key);
        assert!(error.contains(reason), "{key}: {error}");
    }
}

/// The signature is by the key that is named, of its own kind, and over what stands there.
// req: OAUTH-1
// req: OAUTH-3
#[test]
fn signatures_must_hold() {
    let (oauth, _dir) = authority(|_| {});
    let claims = json!({ "aud": "rabbitmq", "sub": "a" });
    let check = |token: &[u8]| oauth.check(token, NOW);
    assert!(check(&token(&header(Some("k")), &claims)).is_ok());
    assert!(
        check(&token(&header(None), &claims)).is_ok(),
        "the only key"
    );
    assert!(check(&token(&header(Some("other")), &claims)).is_err());
    let mut changed = token(&header(Some("k")), &claims);
    let last = changed.len() - 2;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    assert!(check(&changed).is_err());
    let parts = [
        encoded(br#"{"alg":"none"}"#),
        encoded(claims.to_string().as_bytes()),
    ];
    assert!(check(format!("{}.{}.", parts[0], parts[1]).as_bytes()).is_err());
    let (strict, _dir) = authority(|settings| settings.algorithms = vec!["RS256".to_owned()]);
    assert!(
        strict
            .check(&token(&header(Some("k")), &claims), NOW)
            .is_err()
    );
    assert!(oauth.verify(b"guest").is_none(), "a password");
    assert!(
        oauth
            .verify(b"eyJ.x.y")
            .is_some_and(|result| result.is_err())
    );
    let unknown = OAuthSettings {
        resource_server_id: Some("r".to_owned()),
        algorithms: vec!["MD5".to_owned()],
        ..OAuthSettings::default()
    };
    assert!(OAuth::new(&unknown).is_err());
}

/// Names, prefixes and further scopes are by the settings.
#[test]
fn settings_say_where_names_and_scopes_stand() {
    let (oauth, _dir) = authority(|settings| {
        settings.scope_prefix = Some(String::new());
        settings.verify_audience = false;
        settings.username_claims = vec!["email".to_owned()];
        settings.additional_scopes_key = Some("roles".to_owned());
    });
    let claims = json!({
        "email": "a@b", "sub": "x", "scope": ["read:*/*"], "roles": { "rabbitmq": "write:*/q" },
    });
    let read = oauth.check(&token(&header(None), &claims), NOW);
    let read = read.expect("it holds");
    assert_eq!((read.user.as_str(), read.scopes.len()), ("a@b", 2));
}

/// A key that comes later is found, once the wait between two looks is over.
// req: OAUTH-3
#[test]
fn unknown_keys_are_looked_for_but_not_too_often() {
    let (oauth, dir) =
        authority(|settings| settings.refresh_wait = std::time::Duration::from_secs(9));
    let keys = json!({ "keys": [{ "kty": "oct", "kid": "new", "k": encoded(SECRET) }] });
    let begin = Instant::now();
    assert!(oauth.keys.find(Some("new"), begin).is_none());
    std::fs::write(dir.path().join("keys.json"), keys.to_string()).expect("a file");
    let soon = begin + std::time::Duration::from_secs(8);
    assert!(oauth.keys.find(Some("new"), soon).is_none());
    let later = begin + std::time::Duration::from_secs(9);
    assert!(oauth.keys.find(Some("new"), later).is_some());
    std::fs::remove_file(dir.path().join("keys.json")).expect("it was there");
    let last = later + std::time::Duration::from_secs(9);
    assert!(oauth.keys.find(Some("k"), last).is_none());
    assert!(
        oauth.keys.find(Some("new"), last).is_some(),
        "what was read stays"
    );
}
