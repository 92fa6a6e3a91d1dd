//! `audit`: who changed what, and whether the log of it is whole.

use pipeyard_api::views::{AuditCheck, AuditView, Page};

use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
    term,
};

/// Who changed what, newest first.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List changes, newest first; the same as without a word.
    List(List),
    /// Check that every entry is what was written and that none is missing; ends with 1 if not.
    Verify,
}

#[derive(Debug, clap::Args)]
struct List {
    /// How many entries, 1 to 200.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Only entries before this one; `next` of the page before.
    #[arg(long)]
    before: Option<i64>,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self.command {
            None => self.list.run(context).await,
            Some(Verb::List(list)) => list.run(context).await,
            Some(Verb::Verify) => verify(context).await,
        }
    }
}

impl List {
    async fn run(self, context: &Context) -> Outcome {
        let before = self.before.map(|seq| format!("&before={seq}")).unwrap_or_default();
        let path = format!("/api/audit?limit={}{before}", self.limit);
        let page: Page<AuditView> = context.client()?.get(&path).await?;
        context.print(
            &page.items,
            &[
                Column("SEQ", |r| cell(&r["seq"])),
                Column("AT", |r| cell(&r["at"])),
                Column("ACTOR", |r| cell(&r["actor"])),
                Column("FROM", |r| cell(&r["address"])),
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

async fn verify(context: &Context) -> Outcome {
    let check: AuditCheck = context.client()?.get("/api/audit/verify").await?;
    context.print(
        &check,
        &[
            Column("WHOLE", |r| if r["whole"] == true { "yes" } else { "no" }.to_owned()),
            Column("ENTRIES", |r| cell(&r["rows"])),
            Column("BEFORE", |r| cell(&r["before"])),
            Column("HEAD", |r| cell(&r["head"])),
            Column("HASH", |r| cell(&r["hash"])),
        ],
    )?;
    let Some(at) = check.broken_at else { return Ok(Exit::Ok) };
    let problem = check.problem.unwrap_or_default();
    term::say(&format!("entry {at} isn't what was written: {problem}"));
    Ok(Exit::Failed)
}
