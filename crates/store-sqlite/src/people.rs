//! Users: added, changed, removed. A removed one stays as a row for what it did, but nothing signs it
//! in any more and its identities are free again.

use pipeyard_model::{Actor, Role, Timestamp, UserName};
use pipeyard_store::{
    StoreError, StoreResult,
    accounts::{Account, Identity, User},
};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{
    accounts::role,
    audit::{self, Detail},
    column::{failed, parse},
};

/// Who commands on the server's machine sign in: the way back when everybody else is locked out.
const BUILT_IN: &str = "admin";

/// What the audit log says of a person.
fn told(role: Role, identities: &[Identity]) -> Value {
    let identities: Vec<_> =
        identities.iter().map(|one| format!("{}={}", one.forge, one.login)).collect();
    json!({ "role": role, "identities": identities })
}

pub(crate) async fn add(
    c: &mut SqliteConnection,
    user: User,
    identities: Vec<Identity>,
    by: Actor,
    now: Timestamp,
) -> StoreResult<()> {
    let (id, word) = (user.id.to_string(), user.role.as_str());
    let done = sqlx::query!(
        "INSERT INTO users (id, name, role, created_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (name) WHERE removed_at IS NULL DO NOTHING",
        id,
        user.name,
        word,
        now.0
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if done.rows_affected() == 0 {
        let message = format!("there is a user {} already; choose another name", user.name);
        return Err(StoreError::conflict("name_taken", message));
    }
    identify(c, &id, &identities).await?;
    let detail = Detail::new(told(user.role, &identities));
    audit::record_change(c, by, "user.add", &user.name, detail, now).await
}

/// Gives a person these identities, which must be nobody else's.
async fn identify(
    c: &mut SqliteConnection,
    user: &str,
    identities: &[Identity],
) -> StoreResult<()> {
    sqlx::query!("DELETE FROM identities WHERE user_id = ?", user)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    for Identity { forge, login } in identities {
        let done = sqlx::query!(
            "INSERT INTO identities (forge, login, user_id) VALUES (?, ?, ?)
             ON CONFLICT DO NOTHING",
            forge,
            login,
            user
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        if done.rows_affected() == 0 {
            let message = format!(
                "{forge}={login} is given twice or is another user's; see pipectl users list"
            );
            return Err(StoreError::conflict("identity_taken", message));
        }
    }
    Ok(())
}

/// Everybody who isn't removed, or the one of this name.
pub(crate) async fn list(
    c: &mut SqliteConnection,
    name: Option<&str>,
) -> StoreResult<Vec<Account>> {
    let rows = sqlx::query!(
        "SELECT id, name, role, created_at, first_seen_at FROM users
         WHERE removed_at IS NULL AND (?1 IS NULL OR name = ?1) ORDER BY name LIMIT 10000",
        name
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let identities = sqlx::query!("SELECT forge, login, user_id FROM identities ORDER BY 1, 2")
        .fetch_all(c)
        .await
        .map_err(failed)?;
    rows.into_iter()
        .map(|row| {
            let own = identities.iter().filter(|one| one.user_id == row.id);
            Ok(Account {
                identities: own
                    .map(|one| Identity { forge: one.forge.clone(), login: one.login.clone() })
                    .collect(),
                user: User {
                    id: parse("users", "id", &row.id, &row.id)?,
                    role: role(&row.role, &row.id)?,
                    name: row.name,
                },
                created_at: Timestamp(row.created_at),
                first_seen_at: row.first_seen_at.map(Timestamp),
            })
        })
        .collect()
}

pub(crate) async fn by_identity(
    c: &mut SqliteConnection,
    forge: &str,
    login: &str,
) -> StoreResult<Option<User>> {
    let login = login.to_lowercase();
    let row = sqlx::query!(
        "SELECT u.id, u.name, u.role FROM identities i JOIN users u ON u.id = i.user_id
         WHERE i.forge = ? AND i.login = ? AND u.removed_at IS NULL",
        forge,
        login
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    row.map(|row| {
        Ok(User {
            id: parse("users", "id", &row.id, &row.id)?,
            role: role(&row.role, &row.id)?,
            name: row.name,
        })
    })
    .transpose()
}

async fn one(c: &mut SqliteConnection, name: &UserName) -> StoreResult<Account> {
    list(c, Some(name.as_str()))
        .await?
        .pop()
        .ok_or_else(|| StoreError::not_found(format_args!("user {name}")))
}

fn refuse_built_in(name: &UserName) -> StoreResult<()> {
    if name.as_str() != BUILT_IN {
        return Ok(());
    }
    let message = format!(
        "{name} is who `pipectl login-code` signs in on the server's machine; it stays an administrator"
    );
    Err(StoreError::conflict("built_in", message))
}

pub(crate) async fn change(
    c: &mut SqliteConnection,
    name: &UserName,
    role: Option<Role>,
    identities: Option<Vec<Identity>>,
    by: Actor,
    now: Timestamp,
) -> StoreResult<()> {
    let account = one(c, name).await?;
    let id = account.user.id.to_string();
    let before = told(account.user.role, &account.identities);
    if let Some(role) = role {
        if role != Role::Admin {
            refuse_built_in(name)?;
        }
        let word = role.as_str();
        sqlx::query!("UPDATE users SET role = ? WHERE id = ?", word, id)
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    if let Some(identities) = &identities {
        identify(c, &id, identities).await?;
    }
    let identities = identities.unwrap_or(account.identities);
    let after = told(role.unwrap_or(account.user.role), &identities);
    let detail = Detail::changed(before, after);
    audit::record_change(c, by, "user.change", name.as_str(), detail, now).await
}

pub(crate) async fn remove(
    c: &mut SqliteConnection,
    name: &UserName,
    by: Actor,
    now: Timestamp,
) -> StoreResult<()> {
    let account = one(c, name).await?;
    refuse_built_in(name)?;
    let id = account.user.id.to_string();
    sqlx::query!("UPDATE users SET removed_at = ? WHERE id = ?", now.0, id)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let ended = sqlx::query!("DELETE FROM credentials WHERE user_id = ?", id)
        .execute(&mut *c)
        .await
        .map_err(failed)?
        .rows_affected();
    sqlx::query!("DELETE FROM identities WHERE user_id = ?", id)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let mut before = told(account.user.role, &account.identities);
    before["credentials"] = json!(ended);
    audit::record_change(c, by, "user.remove", name.as_str(), Detail::gone(before), now).await
}
