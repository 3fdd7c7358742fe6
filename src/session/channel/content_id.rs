//! The content id of large bodies: told with every delivery, and taken in the place of a body.
//!
//! Owns: the header `x-payload-id`. On a delivery of a body from the payload store it is added to the
//! publisher's headers, or set there. An empty body published with it stands for content that the vhost
//! has, whose bytes then need not be sent again.
//! Spec: `spec/amqp.md` PAYLOAD-1 and PAYLOAD-2.

use bytes::Bytes;

use crate::amqp::field::{FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, PropertiesRef};
use crate::amqp::reply::ReplyCode;
use crate::broker::{Body, Vhost};
use crate::payload::PayloadId;
use crate::payload::message::{CONTENT_TYPE as MANIFEST_CONTENT_TYPE, ID};

use crate::session::failure::{Failure, MethodId};

/// The properties of a message with the content id of its body among its headers.
// req: PAYLOAD-1
pub(super) fn with_content_id(header: &[u8], body_bytes: u64, id: &PayloadId) -> Bytes {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes,
        raw: Bytes::copy_from_slice(header),
    };
    let Ok(mut properties) = content.properties() else {
        // They were read when they came.
        return content.raw;
    };
    let id = id.to_string();
    let headers = properties.headers.get_or_insert_default();
    headers.insert(ShortString::from_static(ID), id.as_str());
    properties.encode()
}

/// The content that a message without a body names in the place of one; none if it names none.
// req: PAYLOAD-2
pub(super) fn named_content(
    vhost: &Vhost,
    header: &ContentHeader,
    properties: &PropertiesRef<'_>,
) -> Result<Option<Body>, Failure> {
    let may_name = |elements: &[u8]| elements.windows(ID.len()).any(|at| at == ID.as_bytes());
    // The manifest of an empty payload has an empty body of its own right.
    if !properties.headers.is_some_and(may_name)
        || properties.content_type == Some(MANIFEST_CONTENT_TYPE.as_bytes())
    {
        return Ok(None);
    }
    let headers = header.headers();
    let Some(FieldValue::LongString(text)) = headers.and_then(|headers| headers.get(ID)) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&text);
    let id: Option<PayloadId> = text.parse().ok();
    // An empty body is that content already: a file of no bytes that is sent under its id.
    if id.is_some_and(|id| id == PayloadId::from_bytes(*blake3::hash(&[]).as_bytes())) {
        return Ok(None);
    }
    let known = id.and_then(|id| vhost.find_payload(id));
    match known {
        Some(payload) => Ok(Some(Body::Payload(payload))),
        None => {
            let explanation = format_args!("no payload '{text}' in vhost '{}'", vhost.name());
            let code = ReplyCode::NotFound;
            Err(Failure::new(code, explanation, MethodId::PUBLISH))
        }
    }
}
