//! Large bodies: content in the payload store, or in memory or a file of its own as long as nothing asks for more.
//!
//! Owns: the rule that a payload is referred to as long as a message that names it exists anywhere:
//! in a queue, unacknowledged, in an outbox or on its way to a socket.
//!
//! ```text
//! Memory ─store─┬─> Stored
//! File ───store─┘
//! ```
//! Spec: DESIGN "Large payloads"; `spec/payload-store.md`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::payload::store::BodyFile;
use crate::payload::{PayloadId, ScopeId};

use super::body_memory::BodyPieces;

/// What the broker asks of whoever keeps payloads; implemented on the payload store.
///
/// All calls but [`Self::store`] come under a queue's lock: they count in memory and must not block or touch a disk.
/// Counts need not survive a restart, since recovery acquires again.
pub trait PayloadReferences: fmt::Debug + Send + Sync {
    /// One more message refers to this content, which is stored already.
    fn acquire(&self, scope: ScopeId, id: &PayloadId);
    /// One more message refers to this content if all of it is there; gives its size in bytes.
    fn acquire_known(&self, scope: ScopeId, id: &PayloadId) -> Option<u64>;
    /// One message fewer refers to it.
    fn release(&self, scope: ScopeId, id: &PayloadId);
    /// Stores a body of this size that is no payload, durably, and refers to it. Blocks on the disk.
    ///
    /// # Errors
    /// Why the store does not take it, for whoever asked.
    fn store(
        &self,
        scope: ScopeId,
        size_bytes: u64,
        octets: &BodyOctets,
    ) -> Result<PayloadId, String>;
    /// Nobody needs this body any more. Closing its file may take its time, so that it is for somebody else to do.
    fn discard(&self, file: Arc<BodyFile>) {
        drop(file);
    }
}

/// Where the octets are of a body that is no payload.
#[derive(Clone, Debug)]
pub enum BodyOctets {
    /// In a file.
    File(Arc<BodyFile>),
    /// In memory.
    Memory(BodyPieces),
}

/// A large body; while any clone lives, so does the content.
#[derive(Clone)]
pub struct PayloadBody(Arc<Held>);

struct Held {
    scope: ScopeId,
    size_bytes: u64,
    references: Option<Arc<dyn PayloadReferences>>,
    /// Its name in the payload store, which is referred to; set once it is there.
    id: OnceLock<PayloadId>,
    /// Its octets, as long as it is no payload: without them there is an id.
    octets: Mutex<Option<BodyOctets>>,
}

impl PayloadBody {
    /// Takes a reference to the content, which is given back when the last clone is gone.
    pub(crate) fn hold(
        references: Option<Arc<dyn PayloadReferences>>,
        scope: ScopeId,
        id: PayloadId,
        size_bytes: u64,
    ) -> Self {
        if let Some(references) = &references {
            references.acquire(scope, &id);
        }
        Self(Arc::new(Held {
            scope,
            size_bytes,
            references,
            id: OnceLock::from(id),
            octets: Mutex::new(None),
        }))
    }

    /// A body that is no payload. `references` is where it becomes one, should it have to.
    // req: MEMBODY-1
    pub(crate) fn unstored(
        references: Option<Arc<dyn PayloadReferences>>,
        scope: ScopeId,
        size_bytes: u64,
        octets: BodyOctets,
    ) -> Self {
        Self(Arc::new(Held {
            scope,
            size_bytes,
            references,
            id: OnceLock::new(),
            octets: Mutex::new(Some(octets)),
        }))
    }

    /// Takes a reference to content that is there already; none if it is not.
    pub(crate) fn find(
        references: Option<Arc<dyn PayloadReferences>>,
        scope: ScopeId,
        id: PayloadId,
    ) -> Option<Self> {
        let size_bytes = references.as_ref()?.acquire_known(scope, &id)?;
        Some(Self(Arc::new(Held {
            scope,
            size_bytes,
            references,
            id: OnceLock::from(id),
            octets: Mutex::new(None),
        })))
    }

    /// The store's scope, which is the vhost's number.
    #[must_use]
    pub fn scope(&self) -> ScopeId {
        self.0.scope
    }

    /// The content's name in the payload store; none if it is not there.
    #[must_use]
    pub fn id(&self) -> Option<&PayloadId> {
        self.0.id.get()
    }

    /// The octets, if they are not in the payload store. A body that had none when this was asked has an [`Self::id`].
    #[must_use]
    pub fn octets(&self) -> Option<BodyOctets> {
        self.0.octets.lock().clone()
    }

    /// The content's name in the payload store, where it is from now on if it was not: then this blocks on the disk, and
    /// no lock should be held.
    ///
    /// # Errors
    /// Why the store does not take it.
    // req: MEMBODY-3
    pub fn store(&self) -> Result<PayloadId, String> {
        if let Some(id) = self.id() {
            return Ok(*id);
        }
        let Some(references) = &self.0.references else {
            return Err("there is no payload store".to_owned());
        };
        let Some(octets) = self.octets() else {
            // Somebody stored it just now.
            return self
                .id()
                .copied()
                .ok_or_else(|| "it has no octets".to_owned());
        };
        let id = references.store(self.0.scope, self.0.size_bytes, &octets)?;
        if self.0.id.set(id).is_err() {
            // Somebody else was faster: the same content has the same name, and one reference is enough.
            references.release(self.0.scope, &id);
        }
        // Only now: who finds no octets finds the id.
        let octets = self.0.octets.lock().take();
        drop(octets);
        Ok(id)
    }

    /// Length of the content in bytes, wherever it is.
    // req: MEMBODY-4
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(references), Some(BodyOctets::File(file))) =
            (&self.references, self.octets.get_mut().take())
        {
            references.discard(file);
        }
        if let (Some(references), Some(id)) = (&self.references, self.id.get()) {
            references.release(self.scope, id);
        }
    }
}

impl fmt::Debug for PayloadBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PayloadBody")
            .field("scope", &self.0.scope)
            .field("size_bytes", &self.0.size_bytes)
            .finish_non_exhaustive()
    }
}
