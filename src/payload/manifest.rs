//! The manifest: everything a peer needs to fetch a payload and to check every byte of it.
//!
//! Owns: the value and its checks. A [`Manifest`] that exists is true to its id: its piece hashes
//! were merged and compared. Bound: 65,536 hashes (2 MiB), 64 peers of 255 bytes.
//! Spec: `spec/manifest.md` MANIFEST-2 to MANIFEST-4, MANIFEST-8.

use std::fmt;
use std::sync::Arc;

use crate::payload::geometry::{Geometry, GeometryError, PieceIndex};
use crate::payload::hash;
use crate::payload::id::{AccessKey, PayloadId, PieceHash};
use crate::payload::message::HeaderProblem;
use crate::payload::priority::Priority;

/// Most peers that a manifest names; more are refused.
pub const PEER_COUNT_MAX: usize = 64;
/// Longest peer address in a manifest, in bytes.
pub const PEER_BYTES_MAX: usize = 255;
/// Longest file name in a manifest, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest content type in a manifest, in bytes: an AMQP short string.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Most web seeds that a manifest names; more are refused.
pub const WEB_SEED_COUNT_MAX: usize = 4;
/// Longest URL of a web seed, in bytes.
pub const WEB_SEED_BYTES_MAX: usize = 1_024;

/// A payload's id, geometry and piece hashes, first peers and access key. Cheap to clone.
///
/// Made only by [`Manifest::new`], which checks that the piece hashes merge to the id.
#[derive(Clone, Eq, PartialEq)]
pub struct Manifest {
    shared: Arc<ManifestParts>,
}

/// The fields of a manifest before they are checked.
#[derive(Clone, Eq, PartialEq)]
pub struct ManifestParts {
    /// The payload's name.
    pub id: PayloadId,
    /// Its size and the size of its pieces.
    pub geometry: Geometry,
    /// One hash for each piece, in order.
    pub piece_hashes: Vec<PieceHash>,
    /// Where to begin: `host:port` of peers that have the payload.
    pub peers: Vec<String>,
    /// What a peer proves to know before it is served.
    pub key: AccessKey,
    /// The sender's name for the payload; never used as a path as it is.
    pub name: Option<String>,
    /// The content type of the payload itself.
    pub content_type: Option<String>,
    /// What a node may heed, as far as its settings allow.
    pub hints: Hints,
}

/// What the sender wishes, beyond what the payload is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hints {
    /// The payload's share of a busy uplink.
    pub priority: Priority,
    /// URLs under which the payload's bytes can be had with ranges.
    pub web_seeds: Vec<String>,
}

/// Why fields make no manifest.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The message's body is not a whole number of hashes.
    #[error("body of {got_bytes} bytes is not a whole number of piece hashes")]
    Body {
        /// Its length.
        got_bytes: usize,
    },
    /// Sizes that no payload may have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A header of the message is not what a manifest needs.
    #[error("header {name} {problem}")]
    Header {
        /// Which header.
        name: &'static str,
        /// What is wrong with it.
        problem: HeaderProblem,
    },
    /// Not one hash for each piece.
    #[error("{got_count} piece hashes for {want_count} pieces")]
    HashCount {
        /// Hashes that came.
        got_count: usize,
        /// Pieces of the payload.
        want_count: u32,
    },
    /// The piece hashes belong to another payload.
    #[error("the piece hashes merge to {merged}, not to the payload id {id}")]
    IdMismatch {
        /// The id that the manifest names.
        id: PayloadId,
        /// The id that its hashes give.
        merged: PayloadId,
    },
    /// The message's content type is not that of a manifest.
    #[error("the message is not a manifest")]
    NotAManifest,
    /// Too many peers, or one that is empty, too long, or holds a comma or white space.
    #[error("{got_count} peers, or one that is no address of 1 to {PEER_BYTES_MAX} bytes")]
    Peers {
        /// Peers that came.
        got_count: usize,
    },
    /// Too many web seeds, or one that is no URL of HTTP or too long.
    #[error("{got_count} web seeds, or one that is no URL of 1 to {WEB_SEED_BYTES_MAX} bytes")]
    WebSeeds {
        /// Web seeds that came.
        got_count: usize,
    },
    /// The name or the content type is longer than 255 bytes.
    #[error("{field} of {got_bytes} bytes is over the limit of 255")]
    TextTooLong {
        /// Which text.
        field: &'static str,
        /// Its length.
        got_bytes: usize,
    },
}

impl Manifest {
    /// Checks `parts` and makes a manifest of them; costs one merge of all piece hashes.
    pub fn new(parts: ManifestParts) -> Result<Self, ManifestError> {
        // req: MANIFEST-2, MANIFEST-3
        let want_count = parts.geometry.piece_count();
        if parts.piece_hashes.len() != want_count as usize {
            let got_count = parts.piece_hashes.len();
            return Err(ManifestError::HashCount {
                got_count,
                want_count,
            });
        }
        check_texts(&parts)?;
        let merged = hash::merge(&parts.piece_hashes);
        if merged != parts.id {
            return Err(ManifestError::IdMismatch {
                id: parts.id,
                merged,
            });
        }
        Ok(Self {
            shared: Arc::new(parts),
        })
    }

    /// The payload's name.
    pub fn id(&self) -> PayloadId {
        self.shared.id
    }

    /// Its size and the size of its pieces.
    pub fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    /// One hash for each piece, in order.
    pub fn piece_hashes(&self) -> &[PieceHash] {
        &self.shared.piece_hashes
    }

    /// Peers to begin with, as `host:port`.
    pub fn peers(&self) -> &[String] {
        &self.shared.peers
    }

    /// What a peer proves to know before it is served.
    pub fn key(&self) -> &AccessKey {
        &self.shared.key
    }

    /// The sender's name for the payload; never used as a path as it is.
    pub fn name(&self) -> Option<&str> {
        self.shared.name.as_deref()
    }

    /// The content type of the payload itself.
    pub fn content_type(&self) -> Option<&str> {
        self.shared.content_type.as_deref()
    }

    /// The piece with this number, if the payload has one.
    pub fn piece_index(&self, index: u32) -> Option<PieceIndex> {
        self.shared.geometry.piece_index(index)
    }

    /// Whether `bytes` are the whole of `piece`, and no other bytes. Spec: PIECE-6.
    pub fn is_piece(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        self.is_piece_of(piece, &[bytes])
    }

    /// Whether `blocks`, one after the other, are the whole of `piece`, and no other bytes. Spec: PIECE-6.
    pub fn is_piece_of(&self, piece: PieceIndex, blocks: &[impl AsRef<[u8]>]) -> bool {
        let wanted = self.shared.piece_hashes.get(piece.as_usize());
        let got = hash::piece_hash(&self.shared.geometry, piece, blocks);
        got.is_some() && got.as_ref() == wanted
    }

    /// The same manifest with other first peers.
    pub fn with_peers(&self, peers: Vec<String>) -> Result<Self, ManifestError> {
        let mut parts = ManifestParts::clone(&self.shared);
        parts.peers = peers;
        check_texts(&parts)?;
        Ok(Self {
            shared: Arc::new(parts),
        })
    }

    /// The same manifest with other hints.
    ///
    /// # Errors
    /// If the web seeds are too many or no URLs.
    pub fn with_hints(&self, hints: Hints) -> Result<Self, ManifestError> {
        let mut parts = ManifestParts::clone(&self.shared);
        parts.hints = hints;
        check_texts(&parts)?;
        Ok(Self {
            shared: Arc::new(parts),
        })
    }

    /// What the sender wishes.
    pub fn hints(&self) -> &Hints {
        &self.shared.hints
    }

    /// Its fields.
    pub fn parts(&self) -> &ManifestParts {
        &self.shared
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(formatter)
    }
}

impl fmt::Debug for ManifestParts {
    /// Leaves out the piece hashes for their length, and the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Manifest")
            .field("id", &self.id)
            .field("geometry", &self.geometry)
            .field("peers", &self.peers)
            .field("name", &self.name)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

// req: MANIFEST-4
fn check_texts(parts: &ManifestParts) -> Result<(), ManifestError> {
    let peers = &parts.peers;
    let is_peer = |peer: &String| {
        (1..=PEER_BYTES_MAX).contains(&peer.len())
            && !peer.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
    };
    if peers.len() > PEER_COUNT_MAX || !peers.iter().all(is_peer) {
        return Err(ManifestError::Peers {
            got_count: peers.len(),
        });
    }
    for (field, text, bytes_max) in [
        ("name", &parts.name, NAME_BYTES_MAX),
        ("content type", &parts.content_type, CONTENT_TYPE_BYTES_MAX),
    ] {
        let got_bytes = text.as_ref().map_or(0, String::len);
        if got_bytes > bytes_max {
            return Err(ManifestError::TextTooLong { field, got_bytes });
        }
    }
    // req: MANIFEST-10
    let web_seeds = &parts.hints.web_seeds;
    if web_seeds.len() > WEB_SEED_COUNT_MAX || !web_seeds.iter().all(|url| is_web_seed(url)) {
        return Err(ManifestError::WebSeeds {
            got_count: web_seeds.len(),
        });
    }
    Ok(())
}

fn is_web_seed(url: &str) -> bool {
    let has_scheme = ["http://", "https://"].iter().any(|scheme| {
        url.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    });
    has_scheme && url.len() <= WEB_SEED_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifest::manifest_parts;

    /// A manifest for `bytes` in pieces of 16 KiB.
    fn parts_of(bytes: &[u8]) -> ManifestParts {
        ManifestParts {
            peers: vec!["127.0.0.1:5690".to_owned()],
            name: Some("film.bin".to_owned()),
            ..manifest_parts(bytes)
        }
    }

    /// Web seeds are few, short and of HTTP; anything else is refused.
    // req: MANIFEST-10
    #[test]
    fn web_seeds_are_urls_of_http() {
        let with = |web_seeds: &[&str]| {
            let web_seeds = web_seeds.iter().map(|url| (*url).to_owned()).collect();
            let manifest = Manifest::new(parts_of(&[3; 50_000])).expect("valid");
            manifest.with_hints(Hints {
                web_seeds,
                ..Hints::default()
            })
        };
        assert!(with(&["http://a/b", "https://c:8443/d?e"]).is_ok());
        let long = format!("http://a/{}", "b".repeat(WEB_SEED_BYTES_MAX));
        for bad in [
            "ftp://a/b",
            "http://",
            "http:///etc",
            "http://a/b c",
            "http://ä/",
            &long,
        ] {
            assert!(with(&[bad]).is_err(), "{bad}");
        }
        assert!(with(&["http://a/b"; WEB_SEED_COUNT_MAX + 1]).is_err());
    }

    /// Hashes that do not merge to the id, or are too few, make no manifest.
    // req: MANIFEST-2
    #[test]
    fn hashes_that_do_not_merge_to_the_id_are_refused() {
        let parts = parts_of(&[3; 50_000]);
        assert!(Manifest::new(parts.clone()).is_ok());
        let mut swapped = parts.clone();
        swapped.piece_hashes.swap(0, 1);
        assert!(matches!(
            Manifest::new(swapped),
            Err(ManifestError::IdMismatch { .. })
        ));
        let mut short = parts;
        short.piece_hashes.pop();
        let error = ManifestError::HashCount {
            got_count: 3,
            want_count: 4,
        };
        assert_eq!(Manifest::new(short), Err(error));
    }

    /// Texts and peers over their bounds are refused.
    // req: MANIFEST-4
    #[test]
    fn texts_over_their_bounds_are_refused() {
        let parts = parts_of(&[3; 100]);
        for change in [
            (|parts| parts.name = Some("n".repeat(NAME_BYTES_MAX + 1))) as fn(&mut ManifestParts),
            |parts| parts.content_type = Some("t".repeat(CONTENT_TYPE_BYTES_MAX + 1)),
            |parts| parts.peers = vec!["p:1".to_owned(); PEER_COUNT_MAX + 1],
            |parts| parts.peers = vec![String::new()],
            |parts| parts.peers = vec!["a:1,b:2".to_owned()],
            |parts| parts.peers = vec!["p".repeat(PEER_BYTES_MAX + 1)],
        ] {
            let mut changed = parts.clone();
            change(&mut changed);
            assert!(Manifest::new(changed).is_err());
        }
    }

    /// Only the right bytes in the right place are a piece.
    // req: PIECE-6
    #[test]
    fn only_the_bytes_of_a_piece_are_that_piece() {
        let bytes: Vec<u8> = (0..50_000_u32).map(|index| (index / 7) as u8).collect();
        let manifest = Manifest::new(parts_of(&bytes)).expect("valid");
        let first = manifest.piece_index(0).expect("inside");
        let second = manifest.piece_index(1).expect("inside");
        let piece = &bytes[..16 * 1024];
        assert!(manifest.is_piece(first, piece));
        assert!(!manifest.is_piece(second, piece));
        assert!(!manifest.is_piece(first, &piece[1..]));
        let mut flipped = piece.to_vec();
        flipped[9_000] ^= 1;
        assert!(!manifest.is_piece(first, &flipped));
    }

    /// Neither the key nor the hashes are in the debug form.
    // req: MANIFEST-8
    #[test]
    fn debug_form_has_no_key() {
        let manifest = Manifest::new(parts_of(&[3; 100])).expect("valid");
        let text = format!("{manifest:?}");
        assert!(!text.contains("key") && !text.contains("07, 07"), "{text}");
    }
}
