//! `tokens` and `audit`: who may sign in by which credential, and who changed what.

use pipeyard_api::views::{AuditView, NewToken, Page, TokenAdded, TokenView};
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
    /// List them; the tokens themselves are never shown.
    List,
    /// Make a token for a program. Prints it, once.
    Create {
        /// What it is told by in lists.
        label: String,
        /// It ends after so many days; never if absent.
        #[arg(long)]
        days: Option<u32>,
    },
    /// Revoke one; also ends a browser's session.
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
                    &[Column("ID", |r| cell(&r["id"])), Column("TOKEN", |r| cell(&r["token"]))],
                )?;
            }
            Self::Rm { id } => client.delete(&format!("/api/tokens/{id}")).await?,
        }
        Ok(Exit::Ok)
    }
}

/// Who changed what, newest first.
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// How many entries, 1 to 200.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Only entries before this one; `next` of the page before.
    #[arg(long)]
    before: Option<i64>,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let before = self.before.map(|seq| format!("&before={seq}")).unwrap_or_default();
        let path = format!("/api/audit?limit={}{before}", self.limit);
        let page: Page<AuditView> = context.client()?.get(&path).await?;
        context.print(
            &page.items,
            &[
                Column("SEQ", |r| cell(&r["seq"])),
                Column("AT", |r| cell(&r["at"])),
                Column("ACTOR", |r| cell(&r["actor"])),
                Column("ACTION", |r| cell(&r["action"])),
                Column("TARGET", |r| cell(&r["target"])),
            ],
        )?;
        if let Some(next) = page.next.filter(|_| context.for_people()) {
            term::say(&format!("older entries: pipectl audit --before {next}"));
        }
        Ok(Exit::Ok)
    }
}
