//! Printing results: one JSON value, five formats.
//!
//! A command gives the whole result as JSON and the columns of its table. `--query` is applied to
//! the whole, once, before the format; what it leaves has no known columns, so a table then shows
//! the fields that are there.

use serde_json::Value;

use crate::{
    exit::Failure,
    table::{self, Screen},
    term,
};

/// How to print results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line, for each row.
    Jsonl,
    /// Values separated by tabs, one row a line, no head.
    Text,
    /// YAML.
    Yaml,
}

/// One column: its head and how its cell is read from a row.
pub struct Column(pub &'static str, pub fn(&Value) -> String);

/// Prints a result.
///
/// # Errors
/// When the query isn't JMESPath or can't be applied.
pub fn print(
    format: Format,
    query: Option<&str>,
    value: Value,
    columns: &[Column],
) -> Result<(), Failure> {
    let (value, columns) = match query {
        None => (value, columns),
        Some(query) => (apply(query, &value)?, &[][..]),
    };
    let text = match format {
        Format::Json => pretty(&value),
        Format::Jsonl => rows(&value).iter().map(|row| format!("{row}\n")).collect(),
        Format::Yaml => serde_yaml::to_string(&value).map_err(|e| Failure::usage(e.to_string()))?,
        Format::Text => {
            let line = |row| term::safe_for_terminal(&cells(row, columns).join("\t"), false);
            rows(&value).into_iter().map(|row| line(row) + "\n").collect()
        }
        Format::Table => table(&value, columns, term::screen()),
    };
    term::put(text.as_bytes());
    Ok(())
}

fn apply(query: &str, value: &Value) -> Result<Value, Failure> {
    let bad = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("failed to apply --query {query:?}: {e}"))
            .hint("JMESPath is explained at https://jmespath.org")
    };
    let expression = jmespath::compile(query).map_err(|e| bad(&e))?;
    let found = expression.search(value).map_err(|e| bad(&e))?;
    serde_json::to_value(&*found).map_err(|e| bad(&e))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn rows(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(rows) => rows.iter().collect(),
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

fn cells(row: &Value, columns: &[Column]) -> Vec<String> {
    if !columns.is_empty() {
        return columns.iter().map(|Column(_, read)| read(row)).collect();
    }
    match row {
        Value::Array(values) => values.iter().map(cell).collect(),
        Value::Object(fields) => fields.values().map(cell).collect(),
        other => vec![cell(other)],
    }
}

/// A value as one cell: no quotes, no line breaks.
#[must_use]
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.replace(['\n', '\t'], " "),
        other => other.to_string(),
    }
}

fn table(value: &Value, columns: &[Column], screen: Screen) -> String {
    let rows = rows(value);
    let heads: Vec<String> = match rows.first() {
        _ if !columns.is_empty() => columns.iter().map(|Column(head, _)| (*head).into()).collect(),
        Some(Value::Object(fields)) => fields.keys().map(|key| key.to_uppercase()).collect(),
        _ => Vec::new(),
    };
    let plain = |cell: String| term::safe_for_terminal(&cell, false);
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| cells(row, columns).into_iter().map(plain).collect()).collect();
    table::render(&heads, &rows, screen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_sees_the_whole_result() {
        let value = json!([{"id": 1, "status": "running"}, {"id": 2, "status": "finished"}]);
        assert_eq!(apply("[?status=='running'].id", &value).unwrap(), json!([1]));
        let error = apply("[?", &value).unwrap_err();
        assert!(error.message.contains("--query"), "{}", error.message);
    }

    #[test]
    fn a_table_has_a_head_and_no_frame() {
        let value = json!([{"id": 81, "title": "Fix 한글\nsecond"}, {"id": 7, "title": "x"}]);
        let text = table(
            &value,
            &[Column("RUN", |r| cell(&r["id"])), Column("TITLE", |r| cell(&r["title"]))],
            Screen::default(),
        );
        assert_eq!(text, "RUN  TITLE\n81   Fix 한글 second\n7    x\n");
    }
}
