//! `fleet enroll` and `fleet hosts`: which hosts belong to a fleet. They speak to the fleet itself, by
//! the credentials that lie in its data folder.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use pipeyard_api::client::{Client, escape};
use pipeyard_model::fleet::{EnrolHost, Enrolment, HostView};
use serde::Deserialize;

use super::{age, duration, filter};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Commands about a fleet that runs.
#[derive(Debug, clap::Subcommand)]
pub enum Fleet {
    /// Let a host enrol, once: print the code that its agent exchanges for a key of its own.
    Enroll(Enroll),
    /// Hosts of the fleet.
    #[command(subcommand)]
    Hosts(Hosts),
}

/// Where the fleet is, and what opens it.
#[derive(Debug, clap::Args)]
pub struct Reach {
    /// The fleet's address.
    #[arg(
        long,
        env = "PIPEYARD_FLEET",
        value_name = "URL",
        default_value = "http://127.0.0.1:8471"
    )]
    fleet: String,
    /// The file that the fleet wrote at its first start.
    #[arg(
        long,
        env = "PIPEYARD_FLEET_CREDENTIALS",
        value_name = "FILE",
        default_value = "pipeyard-data/fleet/credentials.json"
    )]
    credentials: PathBuf,
}

/// Let a host enrol, once.
#[derive(Debug, clap::Args)]
pub struct Enroll {
    /// The host's name. A host that has a key already gets a new one with this enrolment.
    name: String,
    /// Tags by which groups choose hosts, KEY=VALUE, several with commas; what a known host has stays
    /// if absent.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = filter)]
    tags: Option<Vec<(String, String)>>,
    /// Where the service on the host answers, as the fleet's proxy reaches it; needed for a new host.
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// How long the code is good, a minute to seven days.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    valid: Duration,
    #[command(flatten)]
    reach: Reach,
}

/// Hosts of the fleet.
#[derive(Debug, clap::Subcommand)]
pub enum Hosts {
    /// List them.
    List {
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove one: its key is refused from now on, and it gets no traffic and no deployment.
    Rm {
        /// Its name.
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

impl Reach {
    fn client(&self) -> Result<Client, Failure> {
        let file = &self.credentials;
        let text = pipeyard_private::secret(file).map_err(|error| {
            Failure::usage(error.to_string()).hint(
                "run this on the fleet's machine, or name a copy of its credentials.json with \
                 --credentials FILE",
            )
        })?;
        let read: Credentials = serde_json::from_str(&text).map_err(|error| {
            Failure::usage(format!("{} isn't a fleet's credentials: {error}", file.display()))
        })?;
        Ok(Client::new(&self.fleet, Some(read.token))?)
    }
}

impl Fleet {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Enroll(it) => it.run(context).await,
            Self::Hosts(Hosts::List { reach }) => list(context, &reach).await,
            Self::Hosts(Hosts::Rm { name, reach }) => {
                reach.client()?.delete(&format!("/hosts/{}", escape(&name))).await?;
                term::say(&format!("{name} is no host of this fleet any more"));
                Ok(Exit::Ok)
            }
        }
    }
}

impl Enroll {
    async fn run(self, context: &Context) -> Outcome {
        let client = self.reach.client()?;
        let tags = self.tags.map(|tags| tags.into_iter().collect::<BTreeMap<_, _>>());
        let wish = EnrolHost {
            name: self.name,
            tags,
            address: self.address,
            valid_seconds: Some(self.valid.as_secs()),
        };
        let made: Enrolment = client.post("/hosts", &wish).await?;
        term::say(&format!(
            "{} may enrol once, until {}. Put the code into a file on that host that only its user \
             can read, and start\n  pipectl agent --fleet {} --enroll-file FILE --root FOLDER",
            made.name,
            made.expires_at,
            client.base()
        ));
        // Alone on standard output, so that it can be sent into a file.
        context.print_plain(&made, &made.code)?;
        Ok(Exit::Ok)
    }
}

async fn list(context: &Context, reach: &Reach) -> Outcome {
    let hosts: Vec<HostView> = reach.client()?.get("/hosts").await?;
    if hosts.is_empty() && context.for_people() {
        term::say("no hosts yet: pipectl fleet enroll NAME --address IP:PORT --tags KEY=VALUE");
    }
    context.print(
        &hosts,
        &[
            Column("NAME", |r| cell(&r["name"])),
            Column("AGENT", |r| cell(&r["agent"])),
            Column("USER", |r| cell(&r["agent_user"])),
            Column("ADDRESS", |r| cell(&r["address"])),
            Column("TAGS", |r| tags(&r["tags"])),
            Column("KEY", |r| cell(&r["access_key_id"])),
            Column("ENROLLED", |r| age(&r["enrolled_at"])),
        ],
    )?;
    Ok(Exit::Ok)
}

fn tags(value: &serde_json::Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={}", cell(value))).collect();
    if pairs.is_empty() { "-".into() } else { pairs.join(",") }
}
