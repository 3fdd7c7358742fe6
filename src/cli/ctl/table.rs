//! What lists look like: RabbitMQ's tab-separated tables, JSON and CSV.

use serde_json::{Map, Value};

use super::options::{Formatter, Options};

/// Writes rows with these columns.
pub(super) fn print(options: &Options, columns: &[&str], rows: &[Map<String, Value>]) {
    let cell =
        |row: &Map<String, Value>, column: &str| row.get(column).cloned().unwrap_or(Value::Null);
    match options.formatter {
        Formatter::Json => {
            out!("[");
            for (index, row) in rows.iter().enumerate() {
                let chosen = columns
                    .iter()
                    .map(|column| ((*column).to_owned(), cell(row, column)));
                let comma = if index == 0 { "" } else { "," };
                out!("{comma}{}", Value::Object(chosen.collect()));
            }
            out!("]");
        }
        Formatter::Table | Formatter::Csv => {
            let (separator, is_csv) = match options.formatter {
                Formatter::Csv => (",", true),
                Formatter::Table | Formatter::Json => ("\t", false),
            };
            if options.headers && !rows.is_empty() {
                out!("{}", columns.join(separator));
            }
            for row in rows {
                let cells = columns.iter().map(|column| match is_csv {
                    true => csv(&text(&cell(row, column))),
                    false => text(&cell(row, column)),
                });
                out!("{}", cells.collect::<Vec<_>>().join(separator));
            }
        }
    }
}

fn csv(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// A value as RabbitMQ's tables show it: lists and tables as Erlang terms.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(values) => {
            let values = values.iter().map(text);
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        }
        Value::Object(object) => {
            let pairs = object
                .iter()
                .map(|(key, value)| format!("{{\"{key}\",{}}}", term(value)));
            format!("[{}]", pairs.collect::<Vec<_>>().join(","))
        }
    }
}

fn term(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        other => text(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_look_as_rabbitmqs_do() {
        for (value, expected) in [
            (json!("a\tb"), "a b"),
            (json!(5), "5"),
            (json!(true), "true"),
            (json!(null), ""),
            (json!(["management", "a"]), "[management, a]"),
            (json!({}), "[]"),
            (json!({"k": "v", "n": 1}), "[{\"k\",\"v\"},{\"n\",1}]"),
        ] {
            assert_eq!(text(&value), expected);
        }
        assert_eq!(csv("a,\"b"), "\"a,\"\"b\"");
    }
}
