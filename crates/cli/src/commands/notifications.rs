//! `notifications`: where messages go, and what they are signed with.

use pipeyard_api::views::{NotificationSecret, NotificationsView};

use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
    term,
};

/// Signed messages of failures.
#[derive(Debug, clap::Subcommand)]
pub enum Notifications {
    /// Show where they go, and since when there is a signing secret. The secret is never shown again.
    Show,
    /// Make a new signing secret. Prints it, once; messages are signed with it from now on.
    NewSecret,
}

impl Notifications {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::Show => {
                let view: NotificationsView = client.get("/api/notifications").await?;
                context.print(
                    &view,
                    &[
                        Column("URL", |r| cell(&r["url"])),
                        Column("SECRET SET", |r| cell(&r["secret_set_at"])),
                    ],
                )?;
            }
            Self::NewSecret => {
                let made: NotificationSecret =
                    client.post("/api/notifications/secret", &()).await?;
                term::say("give it to the receiver: it isn't shown again");
                context.print(&made, &[Column("SECRET", |r| cell(&r["secret"]))])?;
            }
        }
        Ok(Exit::Ok)
    }
}
