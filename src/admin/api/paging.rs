//! Lists: filtered by name, sorted, cut into pages and down to columns, as a request asks.
//!
//! Bounds: [`PAGE_SIZE_MAX`] items of one page. Without a page everything comes, as in RabbitMQ.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use crate::broker::Pattern;

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Reply};

/// Items of a page unless the request says otherwise.
const PAGE_SIZE_DEFAULT: usize = 100;
/// Most items of a page.
const PAGE_SIZE_MAX: usize = 500;

/// Answers with a list.
pub(super) fn list(call: &Call, items: Vec<Value>) -> Answer {
    list_by(
        call,
        items,
        &Fields {
            name: &|item| {
                let name = item.get("name").and_then(Value::as_str);
                name.unwrap_or_default().to_owned()
            },
            field: &|item, path| field(item, path).cloned(),
        },
        |item| item,
    )
}

/// What a list is filtered and sorted by, without describing all of it.
pub(super) struct Fields<'a, T> {
    /// The name that filters look at.
    pub(super) name: &'a dyn Fn(&T) -> String,
    /// The value of a field, with dots for fields within fields.
    pub(super) field: &'a dyn Fn(&T, &str) -> Option<Value>,
}

/// Answers with a list of things that are described only if they are on the page that is asked for.
pub(super) fn list_by<T>(
    call: &Call,
    mut items: Vec<T>,
    fields: &Fields<'_, T>,
    describe: impl Fn(T) -> Value,
) -> Answer {
    let query = |name: &str| {
        call.query
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    };
    let total_count = items.len();
    if let Some(name) = query("name") {
        let pattern = match query("use_regex") {
            Some("true") => {
                let invalid = |_| ApiError::bad_request("Pagination parameters are invalid");
                Some(Pattern::new(name).map_err(invalid)?)
            }
            Some(_) | None => None,
        };
        items.retain(|item| {
            let own = (fields.name)(item);
            match &pattern {
                Some(pattern) => pattern.matches(own.as_bytes()),
                None => own.contains(name),
            }
        });
    }
    if let Some(sort) = query("sort") {
        let keyed = items
            .into_iter()
            .map(|item| ((fields.field)(&item, sort), item));
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_by(|(left, _), (right, _)| compare(left.as_ref(), right.as_ref()));
        if query("sort_reverse") == Some("true") {
            keyed.reverse();
        }
        items = keyed.into_iter().map(|(_, item)| item).collect();
    }
    let columns: Option<Vec<&str>> = query("columns").map(|columns| columns.split(',').collect());
    let cut = |item: T| {
        let item = describe(item);
        match &columns {
            Some(columns) => only(&item, columns),
            None => item,
        }
    };
    let Some(page) = query("page") else {
        return Ok(Reply::Json(items.into_iter().map(cut).collect()));
    };
    let invalid = || ApiError::bad_request("Pagination parameters are invalid");
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    let said_page = number(page)?;
    let said_size = query("page_size").map(number).transpose()?;
    let page = usize::try_from(said_page).unwrap_or(0);
    let page_size = said_size.map_or(PAGE_SIZE_DEFAULT, |size| usize::try_from(size).unwrap_or(0));
    if page == 0 || page_size == 0 || page_size > PAGE_SIZE_MAX {
        let size = said_size.map_or_else(|| "undefined".to_owned(), |size| size.to_string());
        return Err(ApiError::invalid(
            "invalid_pagination_parameters",
            format!("Invalid pagination parameters: page number {said_page}, page size {size}"),
        ));
    }
    let filtered_count = items.len();
    let page_count = filtered_count.div_ceil(page_size).max(1);
    if page > page_count {
        return Err(ApiError::invalid(
            "page_out_of_range",
            format!(
                "Page out of range, page: {page} page size: {page_size}, len: {filtered_count}"
            ),
        ));
    }
    let on_page = items
        .into_iter()
        .skip((page - 1) * page_size)
        .take(page_size);
    let items: Vec<_> = on_page.map(cut).collect();
    Ok(Reply::Json(json!({
        "total_count": total_count,
        "item_count": items.len(),
        "filtered_count": filtered_count,
        "page": page,
        "page_size": page_size,
        "page_count": page_count,
        "items": items,
    })))
}

/// Answers with one object, cut down to the columns that are asked for.
pub(super) fn one(call: &Call, item: Value) -> Answer {
    Ok(Reply::Json(match call.query.get("columns") {
        Some(columns) => only(&item, &columns.split(',').collect::<Vec<_>>()),
        None => item,
    }))
}

/// A field, with dots for fields within fields.
pub(super) fn field<'a>(item: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(item, |value, part| value.get(part))
}

/// The same object with these fields only, also within the entries of lists.
fn only(item: &Value, columns: &[&str]) -> Value {
    let object = match item {
        Value::Object(object) => object,
        Value::Array(entries) => return entries.iter().map(|entry| only(entry, columns)).collect(),
        other => return other.clone(),
    };
    let mut cut = Map::new();
    for column in columns {
        let (name, is_whole) = match column.split_once('.') {
            Some((name, _)) => (name, false),
            None => (*column, true),
        };
        let Some(value) = object.get(name).filter(|_| !cut.contains_key(name)) else {
            continue;
        };
        let inner: Vec<&str> = columns
            .iter()
            .filter_map(|column| column.strip_prefix(name)?.strip_prefix('.'))
            .collect();
        match (is_whole, value) {
            (true, value) => drop(cut.insert(name.to_owned(), value.clone())),
            (false, Value::Object(_) | Value::Array(_)) => {
                drop(cut.insert(name.to_owned(), only(value, &inner)));
            }
            (false, _) => {}
        }
    }
    Value::Object(cut)
}

/// Numbers by size, texts by octets, what is missing first.
fn compare(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            let (left, right) = (left.as_f64(), right.as_f64());
            left.partial_cmp(&right).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(left)), Some(Value::String(right))) => left.cmp(right),
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => left.cmp(right),
        (left, right) => rank(left).cmp(&rank(right)),
    }
}

fn rank(value: Option<&Value>) -> u8 {
    match value {
        None | Some(Value::Null) => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::Number(_)) => 2,
        Some(Value::String(_)) => 3,
        Some(Value::Array(_) | Value::Object(_)) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns may lie within columns, and what is not there is left out.
    #[test]
    fn columns_cut_objects_down() {
        let item = json!({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": 4});
        assert_eq!(
            only(&item, &["a", "b.d.e", "b.c", "x", "f.g"]),
            json!({"a": 1, "b": {"c": 2, "d": {"e": 3}}})
        );
        let item = json!({"a": [{"b": 1, "c": 2}, {"b": 3}], "d": []});
        assert_eq!(
            only(&item, &["a.b", "d.e"]),
            json!({"a": [{"b": 1}, {"b": 3}], "d": []})
        );
    }

    #[test]
    fn values_are_sorted_by_kind_and_size() {
        let mut values = vec![json!("b"), json!(10), json!(2), json!("a"), json!(null)];
        values.sort_by(|left, right| compare(Some(left), Some(right)));
        assert_eq!(
            values,
            [json!(null), json!(2), json!(10), json!("a"), json!("b")]
        );
    }
}
