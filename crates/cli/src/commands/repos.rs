//! `repos`: which repositories Pipeyard knows.

use std::path::Path;

use pipeyard_api::{
    client::escape,
    views::{AddRepo, AddedRepo, RepoView, SetForgeToken},
};
use pipeyard_model::RepoName;

use super::{age, hook, secrets};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Repositories.
#[derive(Debug, clap::Subcommand)]
pub enum Repos {
    /// List them.
    List,
    /// Add one by its path or URL. Prints the webhook's secret, once.
    Add(Add),
    /// Set the token by which commit statuses are written at the repository's forge, from standard
    /// input or a prompt. GitHub: a fine-grained token with write access to commit statuses.
    SetToken {
        /// The repository.
        name: RepoName,
        /// Read the token from standard input; a final line break is dropped.
        #[arg(long)]
        stdin: bool,
        /// Remove the token instead.
        #[arg(long, conflicts_with = "stdin")]
        remove: bool,
    },
    /// Forget one; its runs stay.
    Rm {
        /// Its name.
        name: RepoName,
    },
}

/// Add a repository.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// Path on the server's machine, or URL.
    url: String,
    /// Its name; from the URL's last part if absent.
    #[arg(long)]
    name: Option<RepoName>,
    /// `git` or `github`; found out from the URL if absent.
    #[arg(long)]
    forge: Option<String>,
    /// Its default branch; found out from HEAD if absent.
    #[arg(long)]
    default_branch: Option<String>,
    /// Install the post-receive hook; the repository is on this machine.
    #[arg(long)]
    install_hook: bool,
}

const COLUMNS: &[Column] = &[
    Column("NAME", |r| cell(&r["name"])),
    Column("FORGE", |r| cell(&r["forge"])),
    Column("BRANCH", |r| cell(&r["default_branch"])),
    Column("URL", |r| cell(&r["url"])),
    Column("AGE", |r| age(&r["created_at"])),
    Column("PROBLEM", |r| r["problem"]["message"].as_str().unwrap_or("").to_owned()),
];

impl Repos {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List => {
                let repos: Vec<RepoView> = client.get("/api/repos").await?;
                if repos.is_empty() && context.for_people() {
                    term::say("no repositories yet: pipectl repos add PATH-or-URL");
                }
                context.print(&repos, COLUMNS)?;
            }
            Self::Add(add) => {
                let local = Path::new(&add.url);
                let url = if local.is_dir() {
                    std::fs::canonicalize(local)?.display().to_string()
                } else if add.install_hook {
                    return Err(Failure::usage(format!(
                        "{} is no folder of this machine: the hook can't be installed",
                        add.url
                    )));
                } else {
                    add.url.clone()
                };
                // Whether the hook can be installed is known before anything is added.
                let place = add.install_hook.then(|| hook::Place::find(local)).transpose()?;
                let body = AddRepo {
                    name: add.name,
                    url,
                    forge: add.forge,
                    default_branch: add.default_branch,
                };
                let added: AddedRepo = client.post("/api/repos", &body).await?;
                let hook_url = format!("{}{}", client.base(), added.repo.hook_path);
                if let Some(place) = place {
                    if let Err(problem) = place.install(&hook_url, &added.hook_secret) {
                        term::say(&format!(
                            "{} is added, but its hook could not be installed; its webhook is \
                             {hook_url} and its secret {}",
                            added.repo.name, added.hook_secret
                        ));
                        return Err(problem);
                    }
                    term::say(&format!("{} is added; its hook is installed", added.repo.name));
                } else {
                    term::say(&format!("{} is added; its webhook is {hook_url}", added.repo.name));
                    term::say("keep the secret: it isn't shown again");
                }
                context.print(
                    &added,
                    &[
                        Column("NAME", |r| cell(&r["repo"]["name"])),
                        Column("HOOK", |r| cell(&r["repo"]["hook_path"])),
                        Column("SECRET", |r| cell(&r["hook_secret"])),
                    ],
                )?;
            }
            Self::SetToken { name, stdin, remove } => {
                let path = format!("/api/forge-token?repo={}", escape(name.as_str()));
                if remove {
                    client.delete(&path).await?;
                } else {
                    let value = secrets::value(stdin, "the forge's token")?;
                    let _: serde_json::Value = client.put(&path, &SetForgeToken { value }).await?;
                    term::say(&format!("commit statuses of {name} are written from now on"));
                }
            }
            Self::Rm { name } => {
                client.delete(&format!("/api/repos/{}", escape(name.as_str()))).await?;
            }
        }
        Ok(Exit::Ok)
    }
}
