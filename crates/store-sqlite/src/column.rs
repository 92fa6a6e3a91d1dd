//! From columns to domain types and back. A value that no version of this program wrote is
//! `Corrupt`, with table, column and row; a failed statement tells whether it may be tried again.

use std::{fmt::Display, str::FromStr};

use pipeyard_api::views::ReasonView;
use pipeyard_model::{
    Timestamp,
    job::Reason,
    origin::{Origin, Stranger},
};
use pipeyard_store::{StoreError, StoreResult};
use serde::{Serialize, de::DeserializeOwned};

/// A statement failed. Inside a use case nothing of it stays.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(crate) fn failed(error: sqlx::Error) -> StoreError {
    if crate::health::says_damaged(&error) {
        return StoreError::Damaged(error.to_string());
    }
    StoreError::Unavailable(error.to_string())
}

/// A value of a column that isn't what it should be.
pub(crate) fn corrupt(
    table: &'static str,
    column: &'static str,
    row: impl Display,
    problem: impl Display,
) -> StoreError {
    StoreError::Corrupt { table, column, row: row.to_string(), problem: problem.to_string() }
}

/// Reads an id, a name or a word.
pub(crate) fn parse<T>(
    table: &'static str,
    column: &'static str,
    row: impl Display,
    text: &str,
) -> StoreResult<T>
where
    T: FromStr<Err: Display>,
{
    text.parse().map_err(|problem| corrupt(table, column, row, problem))
}

/// The same for a column that may be empty.
pub(crate) fn parse_opt<T>(
    table: &'static str,
    column: &'static str,
    row: impl Display,
    text: Option<&str>,
) -> StoreResult<Option<T>>
where
    T: FromStr<Err: Display>,
{
    text.map(|text| parse(table, column, row, text)).transpose()
}

/// Reads a number into a smaller type.
pub(crate) fn number<T>(
    table: &'static str,
    column: &'static str,
    row: impl Display,
    value: i64,
) -> StoreResult<T>
where
    T: TryFrom<i64>,
{
    T::try_from(value).map_err(|_| corrupt(table, column, row, format!("{value} is out of range")))
}

/// Reads what is proven of a run's commit.
pub(crate) fn origin(run: i64, branch: String, stranger: Option<&str>) -> StoreResult<Origin> {
    let why: Option<Stranger> = parse_opt("runs", "stranger", run, stranger)?;
    Ok(why.map_or(Origin::Branch(branch), Origin::Fork))
}

/// Reads a JSON column.
pub(crate) fn json<T: DeserializeOwned>(
    table: &'static str,
    column: &'static str,
    row: impl Display,
    text: &str,
) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|problem| corrupt(table, column, row, problem))
}

/// Writes a JSON column.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> StoreResult<String> {
    serde_json::to_string(value).map_err(|problem| corrupt("(new)", "(json)", "", problem))
}

/// A count or size for a column; larger ones are clamped.
pub(crate) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Two columns as one reason.
pub(crate) fn reason(code: Option<String>, message: Option<String>) -> Option<Reason> {
    code.map(|code| Reason { code, message: message.unwrap_or_default() })
}

/// The same for people.
pub(crate) fn reason_view(code: Option<String>, message: Option<String>) -> Option<ReasonView> {
    code.map(|code| ReasonView { code, message: message.unwrap_or_default() })
}

/// A time column that may be empty.
pub(crate) fn time(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp)
}
