//! Logins by OAuth 2 tokens, over AMQP and HTTP, with keys from a file and from a URL.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use warren::amqp::field::{Secret, ShortString};
use warren::amqp::method::{Method, connection, queue};
use warren::config::ServerSettings;

use crate::broker::Own;
use crate::wire::{Client, Opening};

/// An identity provider with one key of the curve P-256.
struct Provider {
    key: EncodingKey,
    keys: Value,
}

impl Provider {
    fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        // The public key is a point: 4, then both coordinates.
        let public = pair.public_key_raw();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&public[range]);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": part(1..33), "y": part(33..65),
        });
        Self {
            key: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key"),
            keys: json!({ "keys": [jwk] }),
        }
    }

    /// A token of `user` that holds for so many seconds.
    fn token(&self, kid: &str, user: &str, seconds: u64, scopes: &str) -> String {
        let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let claims = json!({
            "sub": user, "aud": ["warren"], "exp": since.as_secs() + seconds, "scope": scopes,
        });
        let header = Header {
            kid: Some(kid.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        encode(&header, &claims, &self.key).expect("a token")
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.keys.to_string()).expect("a file");
    }
}

fn start(change: impl FnOnce(&mut ServerSettings)) -> Own {
    Own::start(|settings| {
        settings.oauth.resource_server_id = Some("warren".to_owned());
        change(settings);
    })
}

fn log_in(own: &Own, user: &str, token: &str) -> Client {
    let mut client = Client::raw(own.address());
    client.greet();
    client.log_in(user, token);
    client.expect_method(0, "connection.tune");
    client.tune(&Opening::default());
    client.call(0, open());
    client
}

fn open() -> connection::Open {
    connection::Open {
        virtual_host: ShortString::from_static("/"),
    }
}

fn declare(client: &mut Client, name: &'static str) {
    client.declare(1, declaration(name));
}

fn declaration(name: &'static str) -> queue::Declare {
    queue::Declare {
        queue: ShortString::from_static(name),
        ..queue::Declare::default()
    }
}

fn ask(http: SocketAddr, path: &str, authorization: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(http).expect("it listens");
    let wait = Some(Duration::from_secs(20));
    stream.set_read_timeout(wait).expect("a socket");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    (status.parse().expect("a number"), body)
}

/// A token is its user's login with the rights of its scopes, and nothing of the account of that name.
// req: OAUTH-1
// req: OAUTH-2
// req: OAUTH-6
#[test]
fn tokens_let_in_with_the_rights_of_their_scopes() {
    let provider = Provider::new("a");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys.json");
    provider.write(&keys);
    let own = start(|settings| settings.oauth.jwks_file = Some(keys));
    let token = provider.token(
        "a",
        "guest",
        600,
        "warren.configure:%2F/own-* warren.read:%2F/*",
    );
    let mut client = log_in(&own, "whoever", &token);
    client.open(1);
    declare(&mut client, "own-1");
    client.send(1, declaration("other"));
    let text = client.expect_channel_close(1, 403);
    assert_eq!(
        text,
        "ACCESS_REFUSED - access to queue 'other' in vhost '/' refused for user 'guest'"
    );
    // Another's key, and a token for nobody here.
    let stranger = Provider::new("a").token("a", "guest", 600, "warren.read:*/*");
    for refused in [&stranger, &format!("{token}x")] {
        let mut client = Client::raw(own.address());
        client.greet();
        client.log_in("guest", refused);
        client.expect_connection_close(403);
    }
    let elsewhere = provider.token("a", "guest", 600, "warren.read:other/*");
    let mut client = Client::raw(own.address());
    client.greet();
    client.log_in("guest", &elsewhere);
    client.expect_method(0, "connection.tune");
    client.tune(&Opening::default());
    client.send(0, open());
    client.expect_connection_close(530);

    let http = own.serve_http();
    let watcher = provider.token("a", "eve", 600, "warren.tag:monitoring");
    let bearer = format!("Bearer {watcher}");
    let (status, body) = ask(http, "/api/whoami", &bearer);
    assert_eq!((status, body["name"].as_str()), (200, Some("eve")));
    assert_eq!(ask(http, "/api/users", &bearer).0, 401, "no administrator");
    let basic = format!("Basic {}", STANDARD.encode(format!("x:{watcher}")));
    assert_eq!(ask(http, "/api/nodes", &basic).0, 200);
    assert_eq!(ask(http, "/api/whoami", "Bearer nonsense").0, 401);
    let guest = format!("Basic {}", STANDARD.encode("guest:guest"));
    assert_eq!(ask(http, "/api/whoami", &guest).0, 200, "passwords go on");
}

/// Rights end with the token, the connection stays, and another token brings them back; one of somebody else does not.
// req: OAUTH-4
// req: OAUTH-5
#[test]
fn tokens_expire_and_are_renewed() {
    let provider = Provider::new("a");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys.json");
    provider.write(&keys);
    let own = start(|settings| settings.oauth.jwks_file = Some(keys));
    let all = "warren.configure:*/* warren.write:*/* warren.read:*/*";
    let mut client = log_in(&own, "a", &provider.token("a", "alice", 2, all));
    client.open(1);
    declare(&mut client, "mine");
    // Declaring goes well until the time is over, then the channel closes and the connection stays.
    let text = loop {
        client.send(1, declaration("mine"));
        match client.next_on(1) {
            crate::wire::Event::Method(_, Method::QueueDeclareOk(_)) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            crate::wire::Event::Method(_, Method::ChannelClose(close)) => {
                client.send(1, warren::amqp::method::channel::CloseOk {});
                break close.reply_text.to_string();
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(text.starts_with("ACCESS_REFUSED"), "{text}");
    let renew = |token: String| connection::UpdateSecret {
        new_secret: Secret::from(Bytes::from(token)),
        reason: ShortString::from_static("it is over"),
    };
    client.send(0, renew(provider.token("a", "alice", 600, all)));
    client.expect_method(0, "connection.update-secret-ok");
    client.open(1);
    declare(&mut client, "mine");
    client.send(0, renew(provider.token("a", "mallory", 600, all)));
    let text = client.expect_connection_close(530);
    assert_eq!(
        text,
        "NOT_ALLOWED - New secret was refused by one of the backends"
    );
}

/// Keys come from a URL, when the first token asks for one.
// req: OAUTH-3
#[test]
fn keys_are_fetched_from_a_url() {
    let provider = Provider::new("web");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let body = provider.keys.to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 1024];
        let count = stream.read(&mut request).expect("a request");
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).expect("sent");
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    let own = start(|settings| settings.oauth.jwks_url = Some(url));
    let token = provider.token("web", "alice", 600, "warren.configure:*/*");
    let mut client = log_in(&own, "alice", &token);
    client.open(1);
    declare(&mut client, "q");
    let request = served.join().expect("it was asked");
    assert!(request.starts_with("GET /keys HTTP/1.0\r\n"), "{request}");
}
