//! Field tables and arrays, kept as the octets they came as.
//!
//! Bound: a table takes the memory of its encoding and nothing more; looking into it reads it anew.
//! Spec: AMQP 0-9-1 §4.2.5.5; `spec/amqp.md` FIELD-3 to FIELD-7.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::{Bytes, BytesMut};

use super::parse::{check_table, short_bytes};
use super::value::RawValue;
use super::{FieldError, FieldValue, ShortString};

/// Named values in the order in which they came; a name may occur twice, and the first one counts.
///
/// Looking up costs time in proportion to the table, so who asks often should keep what it found.
/// A decoded one is a slice of the read buffer; see [`detached`](Self::detached).
#[derive(Clone, Default)]
pub struct FieldTable {
    /// `(name short string | type letter | value)*`, checked.
    elements: Bytes,
}

impl FieldTable {
    /// A table without values.
    pub const EMPTY: Self = Self {
        elements: Bytes::new(),
    };

    /// Takes the elements of a table without its length, as they stand on the wire, after checking
    /// them.
    ///
    /// # Errors
    /// What is wrong with them, or which bound they pass.
    pub fn from_elements(elements: Bytes) -> Result<Self, FieldError> {
        check_table(&elements)?;
        Ok(Self { elements })
    }

    /// Takes elements that a check has walked through.
    pub(super) fn from_checked(elements: Bytes) -> Self {
        Self { elements }
    }

    /// The encoded elements without their length.
    pub fn elements(&self) -> &Bytes {
        &self.elements
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// How many values there are, not counting what is inside them.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Names and values in order.
    pub fn iter(&self) -> TableIter<'_> {
        TableIter {
            owner: &self.elements,
            rest: &self.elements,
        }
    }

    /// The first value of this name.
    // req: FIELD-6
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<FieldValue> {
        let name = name.as_ref();
        let mut rest: &[u8] = &self.elements;
        while let Some((found, value, behind)) = next_named(rest) {
            if found == name {
                return Some(value.into_value(&self.elements));
            }
            rest = behind;
        }
        None
    }

    /// Whether there is a value of this name.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        self.get(name).is_some()
    }

    /// Puts a value in the place of the first one of this name, or at the end. Copies the table.
    pub fn insert(&mut self, name: ShortString, value: impl Into<FieldValue>) {
        let mut value = Some(value.into());
        let mut output = BytesMut::with_capacity(self.elements.len() + name.len());
        for (old_name, old_value) in self.iter() {
            let kept = if old_name == name {
                value.take().unwrap_or(old_value)
            } else {
                old_value
            };
            put_named(&old_name, &kept, &mut output);
        }
        if let Some(value) = value {
            put_named(&name, &value, &mut output);
        }
        self.elements = output.freeze();
    }

    /// Takes out every value of this name. Copies the table.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) {
        let name = name.as_ref();
        *self = self
            .iter()
            .filter(|(found, _)| found.as_bytes() != name)
            .collect();
    }

    /// The same table in memory of its own, so that it keeps no read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            elements: Bytes::copy_from_slice(&self.elements),
        }
    }
}

impl PartialEq for FieldTable {
    /// Same names and values in the same order.
    // req: FIELD-7
    fn eq(&self, other: &Self) -> bool {
        self.elements == other.elements || self.iter().eq(other.iter())
    }
}

impl Eq for FieldTable {}

impl Hash for FieldTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for element in self {
            element.hash(state);
        }
    }
}

impl fmt::Debug for FieldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromIterator<(ShortString, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (ShortString, FieldValue)>>(elements: I) -> Self {
        let mut output = BytesMut::new();
        for (name, value) in elements {
            put_named(&name, &value, &mut output);
        }
        Self {
            elements: output.freeze(),
        }
    }
}

impl<const N: usize> From<[(&'static str, FieldValue); N]> for FieldTable {
    fn from(elements: [(&'static str, FieldValue); N]) -> Self {
        elements
            .into_iter()
            .map(|(name, value)| (ShortString::from_static(name), value))
            .collect()
    }
}

impl<'a> IntoIterator for &'a FieldTable {
    type Item = (ShortString, FieldValue);
    type IntoIter = TableIter<'a>;

    fn into_iter(self) -> TableIter<'a> {
        self.iter()
    }
}

/// Names and values of a [`FieldTable`]; each is a slice of the table.
#[derive(Clone, Debug)]
pub struct TableIter<'a> {
    owner: &'a Bytes,
    rest: &'a [u8],
}

impl Iterator for TableIter<'_> {
    type Item = (ShortString, FieldValue);

    fn next(&mut self) -> Option<(ShortString, FieldValue)> {
        let (name, value, rest) = next_named(self.rest)?;
        self.rest = rest;
        let name = ShortString::from_length_checked(name, || self.owner.slice_ref(name));
        Some((name, value.into_value(self.owner)))
    }
}

/// Values without names in the order in which they came.
///
/// Always checked as a part of the table that it lies in.
#[derive(Clone, Default)]
pub struct FieldArray {
    /// `(type letter | value)*`, checked.
    elements: Bytes,
}

impl FieldArray {
    /// Takes elements that a check has walked through.
    pub(super) fn from_checked(elements: Bytes) -> Self {
        Self { elements }
    }

    /// The encoded elements without their length.
    pub fn elements(&self) -> &Bytes {
        &self.elements
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// How many values there are, not counting what is inside them.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The values in order.
    pub fn iter(&self) -> ArrayIter<'_> {
        ArrayIter {
            owner: &self.elements,
            rest: &self.elements,
        }
    }
}

impl PartialEq for FieldArray {
    /// Same values in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.elements == other.elements || self.iter().eq(other.iter())
    }
}

impl Eq for FieldArray {}

impl Hash for FieldArray {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self {
            value.hash(state);
        }
    }
}

impl fmt::Debug for FieldArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<FieldValue> for FieldArray {
    fn from_iter<I: IntoIterator<Item = FieldValue>>(values: I) -> Self {
        let mut output = BytesMut::new();
        for value in values {
            value.put(&mut output);
        }
        Self {
            elements: output.freeze(),
        }
    }
}

impl<'a> IntoIterator for &'a FieldArray {
    type Item = FieldValue;
    type IntoIter = ArrayIter<'a>;

    fn into_iter(self) -> ArrayIter<'a> {
        self.iter()
    }
}

/// Values of a [`FieldArray`]; each is a slice of the array.
#[derive(Clone, Debug)]
pub struct ArrayIter<'a> {
    owner: &'a Bytes,
    rest: &'a [u8],
}

impl Iterator for ArrayIter<'_> {
    type Item = FieldValue;

    fn next(&mut self) -> Option<FieldValue> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = RawValue::parse(self.rest);
        debug_assert!(
            parsed.is_ok(),
            "elements were checked when the array was made"
        );
        let (rest, value) = parsed.ok()?;
        self.rest = rest;
        Some(value.into_value(self.owner))
    }
}

/// The first element of a table, and what is behind it; `None` at the end.
fn next_named(input: &[u8]) -> Option<(&[u8], RawValue<'_>, &[u8])> {
    if input.is_empty() {
        return None;
    }
    let parsed = short_bytes(input)
        .and_then(|(rest, name)| RawValue::parse(rest).map(|(rest, value)| (name, value, rest)));
    debug_assert!(
        parsed.is_ok(),
        "elements were checked when the table was made"
    );
    parsed.ok()
}

/// Appends `name short string | type letter | value`.
fn put_named(name: &ShortString, value: &FieldValue, output: &mut BytesMut) {
    name.put(output);
    value.put(output);
}
