//! The moment from which a workspace holds the commit. An executor prepares what it can before it
//! (images, networks, services, the container), so that a checkout costs a job almost no time.

use tokio::sync::watch;

/// Held by whoever fills the workspace.
#[derive(Debug)]
pub struct Filling(watch::Sender<bool>);

/// Waits until a workspace is filled; no step begins before.
#[derive(Debug, Clone)]
pub struct Filled(watch::Receiver<bool>);

impl Filling {
    /// A workspace that is being filled.
    #[must_use]
    pub fn begin() -> (Self, Filled) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Filled(receiver))
    }

    /// The workspace holds the commit.
    pub fn done(self) {
        self.0.send_replace(true);
    }
}

impl Filled {
    /// A workspace that is filled already.
    #[must_use]
    pub fn already() -> Self {
        let (filling, filled) = Filling::begin();
        filling.done();
        filled
    }

    /// Waits; never comes back if whoever fills gave up, because he then cancels the job.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut done = self.0.clone();
        async move {
            if done.wait_for(|done| *done).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
