//! Any bytes as the elements of a field table: refused within bounds, or understood completely.
//!
//! * Taking a table costs no memory, whatever it claims to hold.
//! * Its values, taken out one by one and written again, make an equal table.
//! * What the bounds promise holds for every table that is taken.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use warren::amqp::field::{FieldTable, FieldValue};
use warren::amqp::limits::{TABLE_BYTES_MAX, TABLE_DEPTH_MAX, TABLE_ELEMENTS_MAX};
use warrenmq_fuzz::{CountingAllocator, assert_memory_bounded, peak_bytes_of};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// req: FIELD-3
// req: FIELD-4
// req: FIELD-5
fuzz_target!(|input: &[u8]| {
    let elements = Bytes::copy_from_slice(input);
    let (table, peak_bytes) = peak_bytes_of(|| FieldTable::from_elements(elements));
    assert_memory_bounded(peak_bytes, input.len());
    let Ok(table) = table else {
        return;
    };
    assert!(input.len() <= TABLE_BYTES_MAX);
    let mut element_count = 0;
    for (name, value) in &table {
        assert!(table.contains(&name));
        walk(&value, 1, &mut element_count);
    }
    assert!(element_count <= TABLE_ELEMENTS_MAX);

    let again: FieldTable = table.iter().collect();
    assert_eq!(again, table);
    let twice: FieldTable = again.iter().collect();
    assert_eq!(
        twice.elements(),
        again.elements(),
        "one spelling for each value"
    );
    assert!(!format!("{table:?}").is_empty());
});

/// Counts values through all levels.
fn walk(value: &FieldValue, depth: u32, element_count: &mut u32) {
    assert!(depth <= TABLE_DEPTH_MAX);
    *element_count += 1;
    match value {
        FieldValue::Table(table) => {
            table
                .iter()
                .for_each(|(_, inner)| walk(&inner, depth + 1, element_count));
        }
        FieldValue::Array(array) => {
            array
                .iter()
                .for_each(|inner| walk(&inner, depth + 1, element_count));
        }
        _ => assert!(!value.type_name().is_empty()),
    }
}
