//! `users`: who may sign in, and what they may do.

use pipeyard_api::{
    client::escape,
    views::{ChangeUser, NewUser, UserLogin, UserView},
};
use pipeyard_model::{Role, UserName};

use super::age;
use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
    term,
};

/// Users and their roles.
#[derive(Debug, clap::Subcommand)]
pub enum Users {
    /// List them.
    List,
    /// Add one. Prints a one-time login for them, once.
    Add {
        /// The name that they sign in with.
        name: UserName,
        /// `developer`: reads, starts, cancels, reruns, opens incidents. `admin`: everything.
        #[arg(long, default_value = "developer")]
        role: Role,
        /// Who they are at a forge, `github=LOGIN`; may be repeated.
        #[arg(long = "forge", value_name = "FORGE=LOGIN")]
        identities: Vec<String>,
    },
    /// Give one another role; it holds from their next request on.
    SetRole {
        /// Their name.
        name: UserName,
        /// `developer` or `admin`.
        role: Role,
    },
    /// Say who they are at forges, in place of what was said before.
    SetForge {
        /// Their name.
        name: UserName,
        /// `github=LOGIN`, any number; none forgets all.
        #[arg(value_name = "FORGE=LOGIN")]
        identities: Vec<String>,
    },
    /// Make a new one-time login for one. Prints it, once.
    Login {
        /// Their name.
        name: UserName,
    },
    /// Remove one: every session and token that they have ends at once.
    Rm {
        /// Their name.
        name: UserName,
    },
}

impl Users {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let path = |name: &UserName| format!("/api/users/{}", escape(name.as_str()));
        match self {
            Self::List => {
                let users: Vec<UserView> = client.get("/api/users").await?;
                context.print(
                    &users,
                    &[
                        Column("NAME", |r| cell(&r["name"])),
                        Column("ROLE", |r| cell(&r["role"])),
                        Column("FORGES", |r| list(&r["identities"])),
                        Column("AGE", |r| age(&r["created_at"])),
                        Column("FIRST SEEN", |r| age(&r["first_seen_at"])),
                    ],
                )?;
            }
            Self::Add { name, role, identities } => {
                let body = NewUser { name, role: Some(role), identities };
                login(context, &client.post("/api/users", &body).await?)?;
            }
            Self::Login { name } => {
                let path = format!("{}/login", path(&name));
                login(context, &client.post(&path, &()).await?)?;
            }
            Self::SetRole { name, role } => {
                let body = ChangeUser { role: Some(role), identities: None };
                let user: UserView = client.patch(&path(&name), &body).await?;
                term::say(&format!("{} is {} now", user.name, user.role));
            }
            Self::SetForge { name, identities } => {
                let body = ChangeUser { role: None, identities: Some(identities) };
                let _: UserView = client.patch(&path(&name), &body).await?;
            }
            Self::Rm { name } => client.delete(&path(&name)).await?,
        }
        Ok(Exit::Ok)
    }
}

fn login(context: &Context, login: &UserLogin) -> Result<(), crate::Failure> {
    term::say("give them the code or the link: it signs in once and isn't shown again");
    context.print(
        login,
        &[
            Column("NAME", |r| cell(&r["user"]["name"])),
            Column("ROLE", |r| cell(&r["user"]["role"])),
            Column("CODE", |r| cell(&r["code"])),
            Column("LINK", |r| cell(&r["link"])),
            Column("EXPIRES", |r| cell(&r["expires_at"])),
        ],
    )?;
    Ok(())
}

fn list(value: &serde_json::Value) -> String {
    let items: Vec<_> = value.as_array().into_iter().flatten().map(cell).collect();
    if items.is_empty() { "-".into() } else { items.join(", ") }
}
