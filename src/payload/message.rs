//! The manifest as an AMQP message, both ways.
//!
//! Owns: header names and their types. Bound: the body is 2 MiB at most, which [`Geometry`] bounds
//! before a hash is read.
//! Spec: `spec/manifest.md` MANIFEST-5 to MANIFEST-7.

use bytes::{BufMut, Bytes, BytesMut};

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::Properties;
use crate::payload::geometry::{Geometry, PieceBytes};
use crate::payload::id::{AccessKey, HASH_BYTES, PayloadId, PieceHash};
use crate::payload::manifest::{Hints, Manifest, ManifestError, ManifestParts};
use crate::payload::priority::Priority;

/// Content type of a manifest message.
pub const CONTENT_TYPE: &str = "application/vnd.warren.manifest";

/// Header with the content id, on manifests and on deliveries of large bodies: 64 hexadecimal digits.
pub const ID: &str = "x-payload-id";
const SIZE: &str = "x-payload-size";
const PIECE_SIZE: &str = "x-payload-piece-size";
const PEERS: &str = "x-payload-peers";
const KEY: &str = "x-payload-key";
const PAYLOAD_CONTENT_TYPE: &str = "x-payload-content-type";
const NAME: &str = "x-payload-name";
const PRIORITY: &str = "x-payload-priority";
const WEB_SEEDS: &str = "x-payload-web-seeds";
/// Every header that is the manifest's own.
const HEADERS: [&str; 9] = [
    ID,
    SIZE,
    PIECE_SIZE,
    PEERS,
    KEY,
    PAYLOAD_CONTENT_TYPE,
    NAME,
    PRIORITY,
    WEB_SEEDS,
];

/// Why a header is not what a manifest needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// It is there, of the right type, and says nothing valid.
    #[error("is malformed")]
    Malformed,
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It is there with another type.
    #[error("has the wrong type")]
    WrongType,
}

impl Manifest {
    /// Properties and body of the message that stands for this payload.
    ///
    /// `publisher` are the properties that the payload was published with; they stay, but for the
    /// content type and the manifest's own headers.
    pub fn to_message(&self, publisher: &Properties) -> (Properties, Bytes) {
        // req: MANIFEST-5, MANIFEST-6
        let kept = publisher.headers.iter().flat_map(FieldTable::iter);
        let kept = kept.filter(|(name, _)| !is_own_header(name));
        let own = self.own_headers(publisher).into_iter();
        let own = own.map(|(name, value)| (ShortString::truncated(name), value));
        let mut properties = publisher.clone();
        properties.headers = Some(kept.chain(own).collect());
        properties.content_type = Some(ShortString::truncated(CONTENT_TYPE));
        let mut body = BytesMut::with_capacity(self.piece_hashes().len() * HASH_BYTES);
        for hash in self.piece_hashes() {
            body.put_slice(hash.as_bytes());
        }
        (properties, body.freeze())
    }

    /// Reads and checks a manifest message.
    ///
    /// # Errors
    /// [`ManifestError::NotAManifest`] for another content type; else what is wrong.
    pub fn from_message(properties: &Properties, body: &[u8]) -> Result<Self, ManifestError> {
        // req: MANIFEST-3, MANIFEST-7
        if !is_manifest(properties) {
            return Err(ManifestError::NotAManifest);
        }
        let no_headers = FieldTable::EMPTY;
        let headers = properties.headers.as_ref().unwrap_or(&no_headers);
        let id: PayloadId = required(ID, text(headers, ID)?)?
            .parse()
            .map_err(|_| malformed(ID))?;
        let size_bytes = required(SIZE, size(headers, SIZE)?)?;
        let piece_bytes = PieceBytes::new(required(PIECE_SIZE, size(headers, PIECE_SIZE)?)?)?;
        let geometry = Geometry::new(size_bytes, piece_bytes)?;
        let key: AccessKey = required(KEY, text(headers, KEY)?)?
            .parse()
            .map_err(|_| malformed(KEY))?;
        let peers = text(headers, PEERS)?.unwrap_or_default();
        let peers = peers
            .split(',')
            .map(str::trim)
            .filter(|peer| !peer.is_empty());
        let (hashes, rest) = body.as_chunks::<HASH_BYTES>();
        let want_count = geometry.piece_count();
        if !rest.is_empty() {
            return Err(ManifestError::Body {
                got_bytes: body.len(),
            });
        }
        if hashes.len() != want_count as usize {
            let got_count = hashes.len();
            return Err(ManifestError::HashCount {
                got_count,
                want_count,
            });
        }
        Self::new(ManifestParts {
            id,
            geometry,
            piece_hashes: hashes
                .iter()
                .map(|hash| PieceHash::from_bytes(*hash))
                .collect(),
            peers: peers.map(str::to_owned).collect(),
            key,
            name: text(headers, NAME)?,
            content_type: text(headers, PAYLOAD_CONTENT_TYPE)?,
            hints: hints(headers)?,
        })
    }

    fn own_headers(&self, publisher: &Properties) -> Vec<(&'static str, FieldValue)> {
        let text = |text: &str| FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes()));
        // At most 1 TiB and 16 MiB.
        let size = |bytes: u64| FieldValue::LongLongInt(i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut headers = vec![
            (ID, text(&self.id().to_string())),
            (SIZE, size(self.geometry().size_bytes())),
            (
                PIECE_SIZE,
                size(u64::from(self.geometry().piece_bytes().get())),
            ),
            (PEERS, text(&self.peers().join(","))),
            (KEY, text(&self.key().expose_hex())),
        ];
        let published_type = publisher
            .content_type
            .as_ref()
            .and_then(ShortString::as_str);
        if let Some(content_type) = self.content_type().or(published_type) {
            headers.push((PAYLOAD_CONTENT_TYPE, text(content_type)));
        }
        if let Some(name) = self.name() {
            headers.push((NAME, text(name)));
        }
        let hints = self.hints();
        if hints.priority != Priority::default() {
            headers.push((PRIORITY, size(u64::from(hints.priority.get()))));
        }
        if !hints.web_seeds.is_empty() {
            headers.push((WEB_SEEDS, text(&hints.web_seeds.join(" "))));
        }
        headers
    }
}

/// Whether a message with these properties says that it is a manifest.
pub fn is_manifest(properties: &Properties) -> bool {
    let content_type = properties.content_type.as_ref();
    content_type.is_some_and(|content_type| content_type.as_bytes() == CONTENT_TYPE.as_bytes())
}

fn is_own_header(name: &ShortString) -> bool {
    HEADERS
        .iter()
        .any(|header| header.as_bytes() == name.as_bytes())
}

fn hints(headers: &FieldTable) -> Result<Hints, ManifestError> {
    // req: MANIFEST-9
    let priority = match size(headers, PRIORITY)? {
        None => Priority::default(),
        Some(value) => u8::try_from(value)
            .ok()
            .and_then(Priority::new)
            .ok_or_else(|| malformed(PRIORITY))?,
    };
    let web_seeds = text(headers, WEB_SEEDS)?.unwrap_or_default();
    Ok(Hints {
        priority,
        web_seeds: web_seeds.split_whitespace().map(str::to_owned).collect(),
    })
}

fn malformed(name: &'static str) -> ManifestError {
    ManifestError::Header {
        name,
        problem: HeaderProblem::Malformed,
    }
}

fn required<T>(name: &'static str, value: Option<T>) -> Result<T, ManifestError> {
    value.ok_or(ManifestError::Header {
        name,
        problem: HeaderProblem::Missing,
    })
}

fn text(headers: &FieldTable, name: &'static str) -> Result<Option<String>, ManifestError> {
    match headers.get(name) {
        None => Ok(None),
        Some(FieldValue::LongString(bytes)) => match str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(malformed(name)),
        },
        Some(_) => Err(ManifestError::Header {
            name,
            problem: HeaderProblem::WrongType,
        }),
    }
}

fn size(headers: &FieldTable, name: &'static str) -> Result<Option<u64>, ManifestError> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let problem = HeaderProblem::WrongType;
    let value = value
        .as_integer()
        .ok_or(ManifestError::Header { name, problem })?;
    u64::try_from(value).map(Some).map_err(|_| malformed(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::manifest::manifest_parts;

    fn manifest_of(bytes: &[u8]) -> Manifest {
        Manifest::new(ManifestParts {
            peers: vec!["10.0.0.1:5690".to_owned(), "[::1]:5690".to_owned()],
            name: Some("film.bin".to_owned()),
            ..manifest_parts(bytes)
        })
        .expect("valid")
    }

    fn short(text: &str) -> ShortString {
        ShortString::truncated(text)
    }

    fn long(text: &str) -> FieldValue {
        FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Priority and web seeds travel with the message; a priority that is none is refused.
    // req: MANIFEST-9
    #[test]
    fn hints_travel_and_are_checked() {
        let hints = Hints {
            priority: Priority::new(30).expect("valid"),
            web_seeds: vec!["http://a/b".to_owned(), "https://c/d,e".to_owned()],
        };
        let manifest = manifest_of(&[5; 40_000]).with_hints(hints).expect("valid");
        let (mut properties, body) = manifest.to_message(&Properties::default());
        assert_eq!(Manifest::from_message(&properties, &body), Ok(manifest));
        for value in [0, 101, -1, 300] {
            let headers = properties.headers.iter().flat_map(FieldTable::iter);
            let bad = (short(PRIORITY), FieldValue::LongLongInt(value));
            let others = headers.filter(|(name, _)| name.as_bytes() != PRIORITY.as_bytes());
            properties.headers = Some(others.chain([bad]).collect());
            let read = Manifest::from_message(&properties, &body);
            assert_eq!(read, Err(malformed(PRIORITY)), "{value}");
        }
    }

    /// The publisher's properties stay, its content type moves, and it cannot forge a header.
    // req: MANIFEST-5, MANIFEST-6
    #[test]
    fn publishers_properties_stay() {
        let manifest = manifest_of(&[5; 40_000]);
        let headers = [(short("job"), long("7")), (short(KEY), long("forged"))];
        let publisher = Properties {
            content_type: Some(short("video/mp4")),
            headers: Some(headers.into_iter().collect()),
            delivery_mode: Some(2),
            message_id: Some(short("m-1")),
            ..Properties::default()
        };
        let (properties, body) = manifest.to_message(&publisher);
        assert_eq!(body.len(), 3 * HASH_BYTES);
        assert_eq!(properties.content_type, Some(short(CONTENT_TYPE)));
        assert_eq!(properties.delivery_mode, Some(2));
        assert_eq!(properties.message_id, Some(short("m-1")));
        let headers = properties.headers.as_ref().expect("set");
        assert_eq!(headers.get("job"), Some(long("7")));
        assert_eq!(headers.get(SIZE), Some(FieldValue::LongLongInt(40_000)));
        assert_eq!(
            headers.get(PIECE_SIZE),
            Some(FieldValue::LongLongInt(16_384))
        );
        assert_eq!(headers.get(PEERS), Some(long("10.0.0.1:5690,[::1]:5690")));
        assert_eq!(headers.get(KEY), Some(long(&"09".repeat(HASH_BYTES))));
        assert_eq!(
            headers
                .iter()
                .filter(|(name, _)| *name == short(KEY))
                .count(),
            1
        );
        let again = Manifest::from_message(&properties, &body).expect("valid");
        assert_eq!(again.content_type(), Some("video/mp4"));
        assert_eq!(again.peers(), manifest.peers());
        assert_eq!(again.name(), Some("film.bin"));
        assert_eq!(again.key(), manifest.key());
        assert_eq!(again.piece_hashes(), manifest.piece_hashes());
    }

    /// Each missing, mistyped or malformed header is named; the body must fit.
    // req: MANIFEST-3, MANIFEST-7
    #[test]
    fn message_that_is_no_manifest_is_refused_by_name() {
        let (properties, body) = manifest_of(&[5; 40_000]).to_message(&Properties::default());
        let with = |name: &str, value: Option<FieldValue>| {
            let mut changed = properties.clone();
            let mut headers = changed.headers.take().expect("set");
            match value {
                Some(value) => headers.insert(short(name), value),
                None => headers.remove(name),
            }
            changed.headers = Some(headers);
            Manifest::from_message(&changed, &body)
        };
        for name in [ID, SIZE, PIECE_SIZE, KEY] {
            let problem = HeaderProblem::Missing;
            assert_eq!(
                with(name, None),
                Err(ManifestError::Header { name, problem })
            );
        }
        for name in HEADERS {
            let problem = HeaderProblem::WrongType;
            let error = Err(ManifestError::Header { name, problem });
            assert_eq!(with(name, Some(FieldValue::Boolean(true))), error);
        }
        for (name, value) in [
            (ID, long("12")),
            (KEY, long(&"x".repeat(64))),
            (SIZE, FieldValue::LongInt(-1)),
            (NAME, FieldValue::LongString(Bytes::from_static(&[0xff]))),
        ] {
            let problem = HeaderProblem::Malformed;
            assert_eq!(
                with(name, Some(value)),
                Err(ManifestError::Header { name, problem })
            );
        }
        let size = |bytes| Some(FieldValue::LongLongInt(bytes));
        assert!(matches!(
            with(PIECE_SIZE, size(10_000)),
            Err(ManifestError::Geometry(_))
        ));
        assert!(matches!(
            with(SIZE, size(1 << 50)),
            Err(ManifestError::Geometry(_))
        ));
        assert!(matches!(
            with(SIZE, size(1 << 20)),
            Err(ManifestError::HashCount { .. })
        ));
        assert!(with(SIZE, Some(FieldValue::LongUint(40_000))).is_ok());
        assert!(with(PEERS, None).is_ok_and(|manifest| manifest.peers().is_empty()));
        let error = Manifest::from_message(&properties, &body[1..]);
        assert_eq!(
            error,
            Err(ManifestError::Body {
                got_bytes: body.len() - 1
            })
        );
        let error = Manifest::from_message(&Properties::default(), &body);
        assert_eq!(error, Err(ManifestError::NotAManifest));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Every payload's manifest comes back from its message.
        // req: MANIFEST-5
        #[test]
        fn message_form_round_trips(size in 0_usize..300_000, seed in any::<u8>()) {
            let manifest = manifest_of(&vec![seed; size]);
            let (properties, body) = manifest.to_message(&Properties::default());
            prop_assert_eq!(Manifest::from_message(&properties, &body), Ok(manifest));
        }
    }
}
