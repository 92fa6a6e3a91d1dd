//! The store's promises, kept over real files.

#![expect(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::sync::Arc;

use pipeyard_model::{ManualClock, Timestamp};
use pipeyard_store::conformance;
use pipeyard_store_sqlite::SqliteStore;

macro_rules! promises {
    ($($module:ident: $($name:ident),+ $(,)?;)*) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let folder = tempfile::tempdir().unwrap();
                    let (store, clock) = super::open(&folder).await;
                    super::conformance::$module::$name(&store, &clock).await;
                }
            )+
        }
    )*};
}

async fn open(folder: &tempfile::TempDir) -> (SqliteStore, ManualClock) {
    let clock = ManualClock::at(Timestamp::from_seconds(1_772_366_400));
    let path = folder.path().join("pipeyard.sqlite");
    let store = SqliteStore::open(&path, Arc::new(clock.clone())).await.unwrap();
    (store, clock)
}

promises! {
    age:
        what_is_old_is_given_up,
        bytes_that_are_kept_again_are_needed,
        a_release_is_kept_while_it_may_be_needed;
    claims:
        parallel_claims_give_each_job_once,
        the_oldest_run_goes_first,
        a_repeated_request_gets_the_same_jobs,
        labels_decide_who_gets_a_job,
        a_job_that_is_handed_back_is_offered_again,
        a_runners_trouble_is_shown,
        a_stale_epoch_is_refused_and_recorded,
        a_lease_that_runs_out_offers_the_job_again_once,
        the_log_of_a_lost_attempt_is_taken_for_a_while,
        a_once_job_is_never_offered_again,
        a_restart_of_the_server_extends_every_lease,
        steps_end_with_their_attempt;
    deploys:
        a_deploy_is_a_node_like_a_job,
        a_cancelled_run_asks_for_the_end_of_its_deployments;
    ends:
        a_repeated_finish_is_acknowledged,
        a_failed_job_is_tried_again,
        a_restarted_runner_gives_its_job_back,
        a_cancelled_run_ends,
        needs_are_kept,
        a_rerun_of_what_failed_keeps_what_passed;
    kept:
        the_present_attempt_keeps_artifacts,
        a_new_attempt_begins_without_artifacts,
        a_runs_state_is_told_to_its_forge,
        a_failure_is_told_once;
    people:
        a_one_time_login_is_used_once,
        a_credential_ends,
        a_credential_never_outlives_its_parent,
        a_user_comes_and_goes,
        the_audit_log_says_who_from_where_and_is_chained,
        the_use_of_a_token_is_noted,
        a_change_is_in_the_audit_log,
        every_privileged_verb_is_in_the_audit_log;
    places:
        a_file_makes_the_environments,
        a_service_in_work_is_not_retired,
        commits_are_replaced,
        an_incident_is_opened_and_closed_once,
        incidents_are_listed;
    rollouts:
        sequence_numbers_rise_in_their_place,
        a_deploy_of_a_run_gives_one_deployment,
        a_stale_change_is_refused,
        a_lost_answer_keeps_the_token_for_adoption,
        a_place_has_one_active_deployment,
        an_approval_is_kept,
        every_change_is_an_event,
        a_finished_deployment_never_changes,
        history_is_told_by_place,
        deployments_are_listed,
        samples_are_bounded;
    secrets:
        a_job_takes_its_repositorys_secrets,
        a_secret_is_given_within_its_limits;
    sums:
        sums_are_those_of_the_facts,
        a_late_incident_changes_the_day_of_the_deployment,
        a_rollback_fails_what_it_takes_back;
    told:
        a_deployment_is_told_from_start_to_end,
        a_rollback_is_told_with_the_judges_reason,
        an_incident_is_told,
        a_failed_run_says_which_job_and_why;
    intake:
        a_delivery_that_comes_50_times_counts_once,
        a_push_that_is_told_twice_counts_once,
        a_comparison_and_a_hook_tell_of_one_push,
        back_and_forward_again_is_no_repetition,
        a_person_may_ask_twice,
        due_requests_keep_their_order_and_the_rest_wait_alone,
        a_request_gives_its_runs_once,
        a_trimmed_delivery_is_still_known;
    runners:
        a_registration_needs_a_live_token,
        a_silent_runner_is_offline,
        a_removed_runner_loses_its_jobs_at_once;
    tests:
        the_present_attempt_tells_its_tests,
        every_attempt_keeps_its_tests_and_steps;
    runs:
        run_numbers_rise_and_are_never_used_again,
        a_held_run_waits_for_approval,
        a_large_run_appears_whole,
        a_push_and_a_repository_have_an_end,
        a_rerun_is_no_way_around_an_approval,
        a_pipeline_that_does_not_compile_is_a_failed_run,
        lists_are_filtered_and_paged,
        events_go_on_where_a_reader_stopped,
        a_removed_repository_leaves_its_runs;
}

#[tokio::test]
async fn an_installation_keeps_its_id_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).await.0.installation();
    assert_eq!(open(&folder).await.0.installation(), first);
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder).await);
    let path = folder.path().join("pipeyard.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', 1, x'00', 1)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let refused = SqliteStore::open(&path, Arc::new(ManualClock::default())).await.unwrap_err();
    assert!(refused.to_string().contains("newer version"), "{refused}");
}
