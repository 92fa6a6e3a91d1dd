//! `tokens`: who may sign in by which credential.

use pipeyard_api::views::{NewToken, TokenAdded, TokenView};
use pipeyard_model::TokenId;

use super::age;
use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
    term,
};

/// Sessions and API tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Tokens {
    /// List them, administrators everybody's; the tokens themselves are never shown.
    List,
    /// Make a token for a program. Prints it, once. It ends with the token that makes it.
    Create {
        /// What it is told by in lists.
        label: String,
        /// It ends after so many days, 1 to 365; after 90 if absent, or with the token that makes it.
        #[arg(long)]
        days: Option<u32>,
    },
    /// Revoke one, and everything made by it; also ends a browser's session.
    Rm {
        /// Its id.
        id: TokenId,
    },
}

impl Tokens {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List => {
                let tokens: Vec<TokenView> = client.get("/api/tokens").await?;
                context.print(
                    &tokens,
                    &[
                        Column("ID", |r| cell(&r["id"])),
                        Column("USER", |r| cell(&r["user"])),
                        Column("KIND", |r| cell(&r["kind"])),
                        Column("LABEL", |r| cell(&r["label"])),
                        Column("AGE", |r| age(&r["created_at"])),
                        Column("USED", |r| age(&r["used_at"])),
                        Column("ENDS", |r| cell(&r["expires_at"])),
                        Column("THIS", |r| {
                            if r["current"] == true { "yes".to_owned() } else { String::new() }
                        }),
                    ],
                )?;
            }
            Self::Create { label, days } => {
                let added: TokenAdded =
                    client.post("/api/tokens", &NewToken { label, days }).await?;
                term::say("keep the token: it isn't shown again");
                context.print(
                    &added,
                    &[
                        Column("ID", |r| cell(&r["id"])),
                        Column("TOKEN", |r| cell(&r["token"])),
                        Column("ENDS", |r| cell(&r["expires_at"])),
                    ],
                )?;
            }
            Self::Rm { id } => client.delete(&format!("/api/tokens/{id}")).await?,
        }
        Ok(Exit::Ok)
    }
}
