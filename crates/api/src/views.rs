//! What people see of runs, jobs and logs. The same JSON feeds the web UI and `pipectl`.
//!
//! | call | answer |
//! |---|---|
//! | `GET /api/runs?repo=&branch=&status=&conclusion=&limit=&before=` | [`Page`] of [`RunView`], newest first |
//! | `GET /api/runs/{run}` (`latest` is allowed) | [`RunDetail`] |
//! | `POST /api/runs` [`StartRun`] | [`RunView`] |
//! | `POST /api/runs/{run}/cancel`, `/approve`, `/rerun` [`Rerun`] | [`RunView`] |
//! | `GET /api/runs/{run}/jobs/{name}/log?attempt=&from=&count=` | [`LogPage`] |
//! | `GET /api/runs/{run}/jobs/{name}/log/raw?attempt=` | text, `Range` allowed |
//! | `GET /api/runs/{run}/jobs/{name}/log/search?q=&attempt=` | [`LogMatches`] |
//! | `GET /api/runs/{run}/jobs/{name}/log/follow?attempt=&from=` | SSE; `id` is the last line's number, data is an array of [`LogLine`]; `event: end` when the attempt is over |
//! | `GET /api/runs/{run}/jobs/{name}/tests?attempt=` | [`TestReportView`](crate::test_report::TestReportView) |
//! | `GET /api/events?run=` | SSE of [`EventView`]; `id` is its sequence number; resumes from `Last-Event-ID` |
//! | `GET /api/runs/{run}/artifacts` | array of [`ArtifactView`] |
//! | `GET /api/artifacts/{id}` | the bytes |
//! | `GET/POST /api/repos`, `DELETE /api/repos/{name}` | [`RepoView`], [`AddRepo`] |
//! | `GET /api/runners`, `POST /api/runners/tokens`, `DELETE /api/runners/{id}` | [`RunnerView`], [`RegistrationToken`] |
//! | `GET /api/secrets`, `PUT /api/secrets/{name}?repo=` (or `all_repos=true`) [`SetSecret`], `DELETE` | [`SecretView`] |
//! | `POST /api/secrets/check?repo=` [`CheckSecrets`] | array of [`RefusedSecret`] |
//! | `PUT /api/forge-token?repo=` [`SetForgeToken`], `DELETE` | writes commit statuses at the forge |
//! | `GET /api/notifications` | [`NotificationsView`] |
//! | `POST /api/login` [`Login`], `POST /api/logout`, `GET /api/me` | [`Me`] |
//! | `GET/POST /api/tokens`, `DELETE /api/tokens/{id}` | [`TokenView`], [`NewToken`], [`TokenAdded`] |
//! | `GET /api/audit?before=&limit=` | [`Page`] of [`AuditView`], newest first |

use pipeyard_model::{
    ArtifactId, Conclusion, Epoch, HookId, JobId, NodeName, RepoId, RepoName, Role, RunId,
    RunnerId, SecretName, Status, Timestamp, TokenId, UserId, UserName, log::Stream,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use pipeyard_model::origin::Event;

pub use crate::runner::ReasonView;
use crate::test_report::TestSummary;

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass it as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One run in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// `run` for every run, so that saved JSON tells what it is.
    pub kind: String,
    /// The number that people use.
    pub id: RunId,
    /// The repository's name.
    pub repo: RepoName,
    /// The pipeline's name.
    pub pipeline: String,
    /// What started it.
    pub event: Event,
    /// Branch, without `refs/heads/`; the target branch of a pull request.
    pub branch: String,
    /// Number of the pull request.
    pub pull_request: Option<u64>,
    /// Full SHA.
    pub commit: String,
    /// First line of the commit message.
    pub title: String,
    /// Author's name.
    pub author: String,
    /// Where it stands.
    pub status: Status,
    /// How it ended, once finished.
    pub conclusion: Option<Conclusion>,
    /// Why it waits or failed: a held fork, a pipeline that doesn't compile, the job that failed
    /// first and why.
    pub reason: Option<ReasonView>,
    /// A person must approve it before its jobs are offered (a fork's pull request).
    pub held: bool,
    /// A stranger may have written it: a fork's pull request, or a commit that can't be reached from
    /// its branch. It gets no secrets and deploys nothing, approved or not.
    #[serde(default)]
    pub fork: bool,
    /// When the push was received.
    pub created_at: Timestamp,
    /// When its first job began.
    pub started_at: Option<Timestamp>,
    /// When its last job ended.
    pub finished_at: Option<Timestamp>,
}

/// One run with its jobs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// Jobs and deploys in the order of the file.
    pub jobs: Vec<JobView>,
    /// The pipeline file's errors and warnings, rendered with line and caret.
    pub diagnostics: Vec<DiagnosticView>,
}

/// A finding in the pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiagnosticView {
    /// `P204`.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// File in the repository.
    pub path: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// One sentence.
    pub message: String,
    /// The whole finding as text: source line, caret, allowed keys, suggestion.
    pub rendered: String,
}

/// A job or a deploy of a run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its name in the pipeline.
    pub name: NodeName,
    /// `job` or `deploy`.
    pub node: String,
    /// What must have succeeded before.
    pub needs: Vec<NodeName>,
    /// Where it stands.
    pub status: Status,
    /// How it ended.
    pub conclusion: Option<Conclusion>,
    /// Why it waits, failed or was skipped; a queued job always has one.
    pub reason: Option<ReasonView>,
    /// The present or last attempt, from 1; 0 before the first.
    pub epoch: Epoch,
    /// When the present attempt began.
    pub started_at: Option<Timestamp>,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
    /// Steps of the present attempt.
    pub steps: Vec<StepView>,
    /// What the test reports of the present attempt say, if it has any.
    #[serde(default)]
    pub tests: Option<TestSummary>,
    /// Attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// The deployment that a deploy started.
    pub deployment: Option<i64>,
}

/// One attempt of a job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// From 1.
    pub epoch: Epoch,
    /// The runner's name.
    pub runner: String,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub conclusion: Option<Conclusion>,
    /// Why.
    pub reason: Option<ReasonView>,
    /// Bytes of its log so far.
    pub log_bytes: u64,
    /// When its log was removed because of its age.
    pub log_removed_at: Option<Timestamp>,
    /// Its steps.
    #[serde(default)]
    pub steps: Vec<StepView>,
    /// What its test reports say, if it has any.
    #[serde(default)]
    pub tests: Option<TestSummary>,
}

/// One step of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// From 1.
    pub step: u16,
    /// Its name or its command's first line.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// How it ended.
    pub conclusion: Option<Conclusion>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its first line in the log, once it has one.
    pub first_line: Option<u64>,
}

/// One line of a log. Its number never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// From 1.
    pub n: u64,
    /// When it began.
    pub at: Timestamp,
    /// The step from 1, or 0 for the job as a whole.
    pub step: u16,
    /// Who wrote it.
    pub stream: Stream,
    /// The text; bytes that aren't UTF-8 are replaced. May hold escape codes, never markup.
    pub text: String,
    /// A line over 64 KiB: it goes on in the next one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_on: bool,
}

/// A window of a log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// Which attempt.
    pub attempt: Epoch,
    /// Lines `from` to `from + count - 1`, as far as there are any.
    pub lines: Vec<LogLine>,
    /// How many lines the log has now.
    pub total: u64,
    /// No line will be added.
    pub complete: bool,
}

/// Where a text occurs in a log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogMatches {
    /// Numbers of the lines, ascending; at most 10,000 of them.
    pub lines: Vec<u64>,
    /// How many lines match in all; exact.
    pub total: u64,
}

/// Something happened; the reader fetches what changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Always increasing over the installation.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// `run.created`, `run.changed`, `job.changed`, `deployment.changed`, `runner.changed`, ...
    pub kind: String,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// The job's name.
    pub job: Option<NodeName>,
    /// The deployment it belongs to.
    pub deployment: Option<i64>,
}

/// Starts a run by hand.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StartRun {
    /// The repository.
    pub repo: RepoName,
    /// Branch or full SHA; the default branch if absent.
    #[serde(default)]
    pub reference: Option<String>,
}

/// Runs a run again, on the same commit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Rerun {
    /// Only what didn't succeed and what needs it; passed jobs keep their outputs.
    #[serde(default)]
    pub failed: bool,
}

/// A kept output of a job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// Its id.
    pub id: ArtifactId,
    /// The run.
    pub run: RunId,
    /// The job that kept it.
    pub job: NodeName,
    /// Path in the workspace.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// When it was kept.
    pub created_at: Timestamp,
    /// When its bytes were removed because of its age.
    pub removed_at: Option<Timestamp>,
}

/// A repository.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepoView {
    /// Its id.
    pub id: RepoId,
    /// Its name.
    pub name: RepoName,
    /// `git` or `github`.
    pub forge: String,
    /// Where it is fetched from, without credentials.
    pub url: String,
    /// Its default branch.
    pub default_branch: String,
    /// Address of its webhook, `/hooks/{forge}/{hook id}`.
    pub hook_path: String,
    /// Its hook.
    pub hook: HookId,
    /// When it was added.
    pub created_at: Timestamp,
    /// The last problem with it (can't fetch, ...), cleared by the next success.
    pub problem: Option<ReasonView>,
}

/// Adds a repository.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AddRepo {
    /// Its name; from the URL's last part if absent.
    #[serde(default)]
    pub name: Option<RepoName>,
    /// Path on the server or URL.
    pub url: String,
    /// `git` or `github`; `github` if the URL's host says so.
    #[serde(default)]
    pub forge: Option<String>,
    /// Found out from HEAD if absent.
    #[serde(default)]
    pub default_branch: Option<String>,
}

/// A repository that was just added, with what is shown only once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AddedRepo {
    /// The repository.
    pub repo: RepoView,
    /// The webhook's secret. Not shown again.
    pub hook_secret: String,
}

/// A runner.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunnerView {
    /// Its id.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// `online`, `offline`, `unable`: it is there and can run nothing, see `trouble`.
    pub state: String,
    /// Why it can run nothing, such as a Docker that doesn't answer.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Its version.
    pub version: String,
    /// When it last spoke.
    pub seen_at: Option<Timestamp>,
    /// What it works on: `run 81 / test`.
    pub jobs: Vec<String>,
    /// Whose jobs it takes; of every repository if absent.
    pub repos: Option<Vec<String>>,
    /// It takes jobs of forks that a person has approved.
    pub forks: bool,
}

/// Asks for a token that registers one runner.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewRegistrationToken {
    /// Labels that the runner gets.
    pub labels: Vec<String>,
    /// The runner may name labels beside these.
    pub any_label: bool,
    /// Whose jobs it takes; of every repository if empty.
    pub repos: Vec<RepoName>,
    /// It takes jobs of forks that a person has approved.
    pub forks: bool,
    /// The token is refused after so many minutes, 1 to 1440; 60 if absent.
    pub minutes: Option<u32>,
}

/// Registers one runner; shown once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegistrationToken {
    /// The token.
    pub token: String,
    /// It is refused after this.
    pub expires_at: Timestamp,
}

/// A secret without its value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// Its name.
    pub name: SecretName,
    /// The repository that may use it; absent for every repository.
    pub repo: Option<RepoName>,
    /// Patterns of branches that it is limited to; every branch if there are none.
    #[serde(default)]
    pub branches: Vec<String>,
    /// Limited to the default branch of whichever repository asks.
    #[serde(default)]
    pub default_branch_only: bool,
    /// Events that it is limited to; every one if there are none.
    #[serde(default)]
    pub events: Vec<Event>,
    /// What it is limited to, for people: `every branch`, `main, release/*; push`.
    #[serde(default)]
    pub scope: String,
    /// It was for all branches of all repositories in an earlier version, and was limited to default
    /// branches at the upgrade; false once it is set again.
    #[serde(default)]
    pub limited_by_upgrade: bool,
    /// When its value was set.
    pub updated_at: Timestamp,
    /// When a job last received it.
    pub used_at: Option<Timestamp>,
}

/// Sets a secret. Query: `repo=NAME`, or `all_repos=true` for a secret of all repositories. Limits that
/// aren't named stay as they were; a new secret has none but its repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// At least 8 bytes, at most 64 KiB.
    pub value: String,
    /// Patterns of branches: `main`, `release/*`; `**` for every branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<Vec<String>>,
    /// Only the default branch of whichever repository asks. Excludes `branches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch_only: Option<bool>,
    /// `push`, `pull_request`, `manual`; an empty list for every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Event>>,
    /// Refused: no job can name an environment yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<Vec<String>>,
}

/// Asks whether a job on this branch, started so, would get these secrets. Query: `repo=NAME`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSecrets {
    /// The branch that the commit is on; the default branch if absent.
    #[serde(default)]
    pub branch: Option<String>,
    /// What starts the run.
    pub event: Event,
    /// The secrets, at most 200.
    pub names: Vec<SecretName>,
}

/// A secret that such a job wouldn't get. The job would end with this code before it runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RefusedSecret {
    /// Its name.
    pub name: SecretName,
    /// `secret_missing`, `secret_not_for_branch`, `secret_not_for_event`.
    pub code: String,
    /// Why, and the fix.
    pub message: String,
}

/// What a secret that was just set is limited to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SecretLimits {
    /// For people: `every branch`, `main, release/*; push`.
    pub scope: String,
}

/// A token for a forge.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetForgeToken {
    /// The token.
    pub value: String,
}

/// Signs in by the one-time login of the first start, or by a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// The one-time code or an API token.
    pub code: String,
    /// `cookie` sets a session cookie (web); `token` answers with an API token (CLI).
    #[serde(default)]
    pub want: Option<String>,
    /// What the session or token is told by in lists: `pipectl on build-7`.
    #[serde(default)]
    pub label: Option<String>,
    /// A token ends after so many days, 1 to 365; after 90 if absent, or with the token that it is
    /// made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// Who is signed in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// Its id.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// `admin`, `developer`.
    pub role: String,
    /// When the session or token ends.
    pub expires_at: Timestamp,
    /// The new API token, only in the answer to a login that wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A person or program with an account.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Who forges say that it is, `github=ann-lee`.
    pub identities: Vec<String>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it first signed in.
    pub first_seen_at: Option<Timestamp>,
}

/// Adds a person.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Its name.
    pub name: UserName,
    /// `developer` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Who forges say that it is, `github=ann-lee`.
    #[serde(default)]
    pub identities: Vec<String>,
}

/// Changes a person; what is absent stays.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// What it may do from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// All of its identities from now on, `github=ann-lee`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Vec<String>>,
}

/// A person with a one-time login, shown only once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UserLogin {
    /// The person.
    pub user: UserView,
    /// Signs in once: `pipectl login URL --code CODE`, or the link.
    pub code: String,
    /// The same as a link.
    pub link: String,
    /// The code is refused after this.
    pub expires_at: Timestamp,
}

/// A session or API token in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub user: String,
    /// `session` or `token`.
    pub kind: String,
    /// What it is told by.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used; exact to a minute.
    pub used_at: Option<Timestamp>,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// The session or token that it was made by; it ends with it.
    pub parent: Option<TokenId>,
    /// It is the one that this request came with.
    pub current: bool,
}

/// Makes an API token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// What it is told by in lists.
    pub label: String,
    /// It ends after so many days, 1 to 365; after 90 if absent, or with the session or token that
    /// makes it.
    #[serde(default)]
    pub days: Option<u32>,
}

/// A new API token, shown only once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenAdded {
    /// Its id.
    pub id: TokenId,
    /// The token.
    pub token: String,
    /// It is refused after this.
    pub expires_at: Timestamp,
}

/// One change.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Always increasing.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// The kind of who did it: `user`, `runner`, `attempt`, `forge`, `pipeyard`, `nobody`.
    pub who: String,
    /// What it was called then; `pipeyard` for the server itself.
    pub actor: String,
    /// The session or token that the request came with.
    pub credential: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// `secret.set`, `run.cancel`, ...
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// What was there before.
    pub before: Option<serde_json::Value>,
    /// What is there now.
    pub after: Option<serde_json::Value>,
    /// SHA-256 over this row and all before it; absent in rows from before the chain began.
    pub hash: Option<String>,
}

/// What a check of the audit log found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditCheck {
    /// Every row is what was written.
    pub whole: bool,
    /// Rows of the chain that were checked.
    pub rows: u64,
    /// Rows from before the chain began; its first link covers them.
    pub before: u64,
    /// The newest row. Write it down with its hash elsewhere, to notice a whole new log.
    pub head: i64,
    /// Its hash.
    pub hash: String,
    /// The first row that isn't what was written.
    pub broken_at: Option<i64>,
    /// How it isn't.
    pub problem: Option<String>,
}

/// Where notifications go.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NotificationsView {
    /// `notify_url` of the server's settings, without its path; nothing is sent if absent.
    pub url: Option<String>,
    /// When the secret that they are signed with was made; absent while nobody had one made.
    pub secret_set_at: Option<Timestamp>,
}

/// What notifications are signed with from now on; shown only once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NotificationSecret {
    /// As standardwebhooks.com's libraries take it.
    pub secret: String,
}
