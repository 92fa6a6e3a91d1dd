//! `login` and `logout`.

use std::io::Read as _;

use pipeyard_api::{
    client::Client,
    views::{Login as LoginBody, Me},
};

use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    profile::{Profile, Profiles},
    term,
};

/// Sign in to a server and keep the token in a profile.
#[derive(Debug, clap::Args)]
pub struct Login {
    /// The server's address, http://127.0.0.1:8470; the profile's, if it has one.
    url: Option<String>,
    /// The one-time code that the server's first start printed.
    #[arg(long, value_name = "CODE", conflicts_with = "token_stdin")]
    code: Option<String>,
    /// Read an API token or a code from standard input.
    #[arg(long)]
    token_stdin: bool,
    /// The token ends after so many days, 1 to 365; after 90 if absent.
    #[arg(long)]
    days: Option<u32>,
}

impl Login {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let path = context.config_path();
        let mut profiles = Profiles::read(&path)?;
        let name = context.profile_name().to_owned();
        let url = self
            .url
            .or_else(|| context.global.server.clone())
            .or_else(|| profiles.profiles.get(&name).map(|p| p.server.clone()))
            .ok_or_else(|| {
                Failure::usage("which server?").hint("pipectl login http://127.0.0.1:8470")
            })?;
        // The address may be the whole link that the server printed.
        let (url, linked) = match url.split_once("/login#code=") {
            Some((url, code)) => (url.to_owned(), Some(code.to_owned())),
            None => (url, None),
        };
        // Before anybody types a secret for it.
        let client = Client::new(&url, None)?;
        let code = match self.code.or(linked) {
            Some(code) => code,
            None if self.token_stdin => {
                let mut text = String::new();
                std::io::stdin().take(10_000).read_to_string(&mut text)?;
                text
            }
            None if term::stdin_is_terminal() => {
                term::say("One-time code or API token:");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line)?;
                line
            }
            None => {
                return Err(Failure::usage("no code was given and there is no terminal to ask on")
                    .hint("pipectl login URL --code CODE, or --token-stdin"));
            }
        };
        let body = LoginBody {
            code: code.trim().to_owned(),
            want: Some("token".into()),
            label: Some("pipectl".into()),
            days: self.days,
        };
        let me: Me = client.post("/api/login", &body).await?;
        let token =
            me.token.ok_or_else(|| Failure::new(Exit::Failed, "the server gave no token"))?;
        let profile = Profile { server: client.base().to_owned(), token, user: me.name.clone() };
        profiles.profiles.insert(name.clone(), profile);
        profiles.write(&path)?;
        term::say(&format!(
            "signed in to {} as {}, {}, until {} (profile {name})",
            client.base(),
            me.name,
            me.role,
            me.expires_at
        ));
        Ok(Exit::Ok)
    }
}

/// Forget a profile's token, here and at the server.
#[derive(Debug, clap::Args)]
pub struct Logout {}

impl Logout {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let path = context.config_path();
        let mut profiles = Profiles::read(&path)?;
        let told: Result<serde_json::Value, _> = client.post("/api/logout", &()).await;
        profiles.profiles.remove(context.profile_name());
        profiles.write(&path)?;
        if let Err(error) = told {
            term::say(&format!("the token is forgotten here, but the server wasn't told: {error}"));
        }
        Ok(Exit::Ok)
    }
}
