//! What a command works with: the global options, the profile, the client, the printer.

use std::path::PathBuf;

use pipeyard_api::client::Client;
use serde::Serialize;

use crate::{
    Global,
    exit::{Exit, Failure},
    output::{self, Column, Format},
    profile::{self, Profiles},
};

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    /// The global options.
    pub global: Global,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    /// The profiles' file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.global.profiles.clone().unwrap_or_else(profile::default_path)
    }

    /// The profile's name.
    #[must_use]
    pub fn profile_name(&self) -> &str {
        self.global.profile.as_deref().unwrap_or(profile::DEFAULT)
    }

    /// A client for the chosen server. `PIPEYARD_TOKEN` wins over the profile's token.
    ///
    /// # Errors
    /// When no server is known.
    pub fn client(&self) -> Result<Client, Failure> {
        let profiles = Profiles::read(&self.config_path())?;
        let profile = profiles.profiles.get(self.profile_name());
        if profile.is_none() && self.global.profile.is_some() {
            let known: Vec<_> = profiles.profiles.keys().map(String::as_str).collect();
            return Err(Failure::new(
                Exit::Permission,
                format!("there is no profile {:?}", self.profile_name()),
            )
            .hint(format!(
                "profiles: {}; pipectl login URL --profile NAME makes one",
                known.join(", ")
            )));
        }
        let token = std::env::var("PIPEYARD_TOKEN").ok().filter(|t| !t.is_empty());
        let (server, token) = match (&self.global.server, profile) {
            (Some(server), Some(p)) if *server == p.server => {
                (server.clone(), token.or(Some(p.token.clone())))
            }
            // A profile's token is for the profile's server only.
            (Some(server), _) => (server.clone(), token),
            (None, Some(p)) => (p.server.clone(), token.or(Some(p.token.clone()))),
            (None, None) => {
                return Err(Failure::new(Exit::Permission, "you aren't signed in to any server")
                    .hint(
                        "pipectl login URL (the first start of a server prints a one-time login)",
                    ));
            }
        };
        Ok(Client::new(&server, token)?)
    }

    /// Prints a result in the chosen format.
    ///
    /// # Errors
    /// When the query can't be applied.
    pub fn print<T: Serialize>(&self, value: &T, columns: &[Column]) -> Result<(), Failure> {
        let value = serde_json::to_value(value).map_err(|e| Failure::usage(e.to_string()))?;
        output::print(self.global.output, self.global.query.as_deref(), value, columns)
    }

    /// Prints a result in the chosen format; for people just `text`.
    ///
    /// # Errors
    /// When the query can't be applied, or nothing can be written.
    pub fn print_plain<T: Serialize>(&self, value: &T, text: &str) -> Result<(), Failure> {
        use std::io::Write as _;
        if !self.for_people() {
            return self.print(value, &[]);
        }
        Ok(writeln!(std::io::stdout().lock(), "{text}")?)
    }

    /// Whether a person reads the result as a table.
    #[must_use]
    pub fn for_people(&self) -> bool {
        self.global.output == Format::Table && self.global.query.is_none()
    }
}
