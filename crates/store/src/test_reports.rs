//! What the test reports of attempts say.

use async_trait::async_trait;
use pipeyard_api::test_report::TestReport;
use pipeyard_model::{AttemptId, RunnerId, Timestamp};

use crate::StoreResult;

/// Test reports, one for each attempt whose job names some.
#[async_trait]
pub trait TestReports {
    /// Keeps what the reports of the job's present attempt say; another epoch is refused as
    /// `stale_epoch`. Again, it replaces what was kept, so that a repeat is harmless.
    async fn report_tests(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        report: TestReport,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// What the reports of an attempt say; `None` if it has none.
    async fn test_report(&self, attempt: AttemptId) -> StoreResult<Option<TestReport>>;
}
