//! References to content in the payload store.
//!
//! Owns: the rule that a payload is referred to as long as a message that names it exists anywhere:
//! in a queue, unacknowledged, in an outbox or on its way to a socket. Knows nothing of files.
//! Spec: DESIGN "Large payloads"; `spec/payload-store.md`.

use std::fmt;
use std::sync::Arc;

use crate::payload::{PayloadId, ScopeId};

/// What the broker asks of whoever keeps payloads; implemented on the payload store.
///
/// Both calls come under a queue's lock: they count in memory and must not block or touch a disk.
/// Counts need not survive a restart, since recovery acquires again.
pub trait PayloadReferences: fmt::Debug + Send + Sync {
    /// One more message refers to this content, which is stored already.
    fn acquire(&self, scope: ScopeId, id: &PayloadId);
    /// One more message refers to this content if all of it is there; gives its size in bytes.
    fn acquire_known(&self, scope: ScopeId, id: &PayloadId) -> Option<u64>;
    /// One message fewer refers to it.
    fn release(&self, scope: ScopeId, id: &PayloadId);
}

/// A body that lies in the payload store; while any clone lives, so does the content.
#[derive(Clone)]
pub struct PayloadBody(Arc<Held>);

struct Held {
    scope: ScopeId,
    id: PayloadId,
    size_bytes: u64,
    references: Option<Arc<dyn PayloadReferences>>,
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
            id,
            size_bytes,
            references,
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
            id,
            size_bytes,
            references,
        })))
    }

    /// The store's scope, which is the vhost's number.
    #[must_use]
    pub fn scope(&self) -> ScopeId {
        self.0.scope
    }

    /// The content's name.
    #[must_use]
    pub fn id(&self) -> &PayloadId {
        &self.0.id
    }

    /// Length of the content in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(references) = &self.references {
            references.release(self.scope, &self.id);
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
