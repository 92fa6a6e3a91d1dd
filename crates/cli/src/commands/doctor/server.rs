//! The server: that it answers, agrees on the time and the version, knows who asks, and has what it
//! needs to run something.

use std::time::{Duration, Instant};

use pipeyard_api::{
    client::Client,
    deploys::{EnvironmentView, HealthView},
    views::{Me, Page, RepoView, RunView, RunnerView},
};
use pipeyard_model::{Clock as _, SystemClock, Timestamp};
use serde_json::Value;

use super::Check;
use crate::{context::Context, exit::Failure};

/// Clocks that are further apart make signatures expire and times read wrong.
const SKEW: Duration = Duration::from_secs(30);
/// Queued runs that are looked at.
const LOOKED_AT: u32 = 50;

/// Everything of the server, as far as it answers.
pub(super) async fn checks(context: &Context, client: &Client) -> Vec<Check> {
    let mut checks = vec![profile(context, client)];
    let start = Instant::now();
    let ready = match client.open("/readyz", &[]).await {
        Ok(ready) => ready,
        Err(error) => {
            let failure = Failure::from(error);
            let fix = failure.hint.unwrap_or_else(|| "look at the server's own log".into());
            checks.push(Check::failed("server", failure.message, fix));
            return checks;
        }
    };
    let took = start.elapsed().as_millis();
    checks.push(Check::ok("server", format!("{} is ready, answered in {took} ms", client.base())));
    let date = ready.headers().get("date").and_then(|date| date.to_str().ok());
    checks.extend(clock(date, SystemClock.now()));
    match client.get::<Me>("/api/me").await {
        Ok(me) => checks.push(Check::ok("login", format!("{}, {}", me.name, me.role))),
        Err(error) => {
            let failure = Failure::from(error);
            let fix = failure.hint.unwrap_or_else(|| "pipectl login URL".into());
            checks.push(Check::failed("login", failure.message, fix));
            return checks;
        }
    }
    checks.push(version(client).await);
    checks.push(match client.get::<Vec<RunnerView>>("/api/runners").await {
        Ok(list) => runners(&list),
        Err(error) => refused("runners", error),
    });
    checks.push(match client.get::<Vec<RepoView>>("/api/repos").await {
        Ok(list) => repos(&list),
        Err(error) => refused("repos", error),
    });
    checks.extend(match client.get::<Vec<EnvironmentView>>("/api/environments").await {
        Ok(list) => services(&list),
        Err(error) => Some(refused("services", error)),
    });
    let queued = format!("/api/runs?status=queued&limit={LOOKED_AT}");
    checks.push(match client.get::<Page<RunView>>(&queued).await {
        Ok(page) => queue(&page.items),
        Err(error) => refused("queue", error),
    });
    checks
}

fn refused(check: &'static str, error: pipeyard_api::client::ClientError) -> Check {
    let failure = Failure::from(error);
    Check::failed(check, failure.message, failure.hint.unwrap_or_default())
}

fn profile(context: &Context, client: &Client) -> Check {
    let token = if std::env::var_os("PIPEYARD_TOKEN").is_some_and(|token| !token.is_empty()) {
        ", token from PIPEYARD_TOKEN"
    } else {
        ""
    };
    let path = context.config_path();
    let name = context.profile_name();
    Check::ok("profile", format!("{name} of {}: {}{token}", path.display(), client.base()))
}

/// The server's clock against this machine's; nothing if the server didn't say.
fn clock(date: Option<&str>, now: Timestamp) -> Option<Check> {
    let there = Timestamp::from_seconds(http_date(date?)?);
    let apart = there.since(now).max(now.since(there));
    let seconds = apart.as_secs();
    Some(if apart > SKEW {
        Check::warning(
            "clock",
            format!("this machine and the server are {seconds} s apart"),
            "let both follow a time server (systemd-timesyncd, chrony)",
        )
    } else {
        Check::ok("clock", "agrees with the server's")
    })
}

/// `Sun, 22 Nov 2026 10:06:27 GMT` as seconds since 1970.
fn http_date(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace().skip(1);
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let names =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(names.iter().position(|name| *name == month)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let time: Vec<i64> = words.next()?.split(':').filter_map(|part| part.parse().ok()).collect();
    let [hour, minute, second] = time[..] else { return None };
    // Days since 1970 of a day of the Gregorian calendar, counted from March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

async fn version(client: &Client) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match client.get::<Value>("/api/openapi.json").await {
        Err(error) => refused("version", error),
        Ok(document) => match document["info"]["version"].as_str() {
            Some(theirs) if theirs == own => Check::ok("version", format!("{own} on both sides")),
            theirs => Check::warning(
                "version",
                format!("the server has {}, this pipectl {own}", theirs.unwrap_or("another")),
                "install the same version on both sides",
            ),
        },
    }
}

fn runners(list: &[RunnerView]) -> Check {
    let (online, away): (Vec<_>, Vec<_>) = list.iter().partition(|r| r.state == "online");
    let (unable, offline): (Vec<_>, Vec<_>) = away.into_iter().partition(|r| r.state == "unable");
    // Whoever is there and can't work is what people can mend first.
    if let Some(first) = unable.first() {
        let why = first.trouble.as_deref().unwrap_or("it doesn't say why");
        let found = format!("{} can run no job: {why}", first.name);
        let fix = "mend it on that runner's machine; it goes on by itself";
        return match online.is_empty() {
            true => Check::failed("runners", found, fix),
            false => Check::warning("runners", found, fix),
        };
    }
    let names =
        |list: &[&RunnerView]| list.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
    if online.is_empty() {
        let found = if offline.is_empty() {
            "there is none: no job can start".to_owned()
        } else {
            format!("none is online ({} offline): no job can start", names(&offline))
        };
        let fix = "pipectl runners token, then pipectl runner --server URL --token-file FILE";
        return Check::failed("runners", found, fix);
    }
    let found = format!("{} online ({})", online.len(), names(&online));
    if offline.is_empty() {
        return Check::ok("runners", found);
    }
    Check::warning(
        "runners",
        format!("{found}, {} offline ({})", offline.len(), names(&offline)),
        "start them again, or forget them: pipectl runners rm NAME",
    )
}

fn repos(list: &[RepoView]) -> Check {
    let bad = list.iter().find_map(|repo| Some((&repo.name, repo.problem.as_ref()?)));
    match (list.len(), bad) {
        (0, _) => {
            Check::warning("repos", "there is none: no push starts a run", "pipectl repos add URL")
        }
        (_, Some((name, problem))) => {
            Check::warning("repos", format!("{name}: {}", problem.message), "pipectl repos list")
        }
        (1, None) => Check::ok("repos", "1, without problems"),
        (many, None) => Check::ok("repos", format!("{many}, without problems")),
    }
}

/// Whether what was deployed serves; nothing when there is nothing to say.
fn services(environments: &[EnvironmentView]) -> Option<Check> {
    let each = environments.iter().flat_map(|environment| {
        environment.services.iter().filter_map(move |service| {
            let place = format!("{}/{}", environment.name, service.name);
            Some((place, service.health.as_ref().filter(|health| health.state != "nothing")?))
        })
    });
    let each: Vec<(String, &HealthView)> = each.collect();
    let worst = |state: &str| each.iter().find(|(_, health)| health.state == state);
    let why = |health: &HealthView| health.reason.clone().unwrap_or_default();
    if let Some((place, health)) = worst("down") {
        let found = format!("{place} serves nobody: {}", why(health));
        let fix = "what is stopped is started again by itself; else look into the program's log: \
                   docker logs, pipectl incidents list --open";
        return Some(Check::failed("services", found, fix));
    }
    for state in ["unknown", "impaired"] {
        if let Some((place, health)) = worst(state) {
            let found = format!(
                "{place} is {state}, {} of {} answer: {}",
                health.healthy,
                health.wanted,
                why(health)
            );
            return Some(Check::warning("services", found, "pipectl envs list"));
        }
    }
    (!each.is_empty()).then(|| Check::ok("services", format!("{} serving", each.len())))
}

fn queue(queued: &[RunView]) -> Check {
    let stuck: Vec<_> = queued.iter().filter(|run| run.reason.is_some()).collect();
    match (stuck.first().and_then(|run| run.reason.as_ref().map(|why| (run, why))), queued.len()) {
        (Some((run, why)), _) => Check::warning(
            "queue",
            format!("{} waiting; run {}: {}", stuck.len(), run.id, why.message),
            format!("pipectl runs view {}", run.id),
        ),
        (None, 0) => Check::ok("queue", "empty"),
        (None, waiting) => Check::ok("queue", format!("{waiting} waiting for their turn")),
    }
}

#[cfg(test)]
mod tests {
    use pipeyard_model::RunnerId;

    use super::{super::Level, *};

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for bad in ["", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT"]
        {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_in_both_directions() {
        let now = Timestamp::from_seconds(784_111_777);
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(clock(date, now).unwrap().result, Level::Ok);
        for apart in [-120, 120] {
            let check = clock(date, Timestamp::from_seconds(784_111_777 + apart)).unwrap();
            assert_eq!(check.result, Level::Warning);
            assert!(check.found.contains("120 s"), "{}", check.found);
        }
        assert_eq!(clock(None, now), None);
    }

    #[test]
    fn runners_that_are_away_are_named() {
        let runner = |name: &str, state: &str| RunnerView {
            id: RunnerId::new(),
            name: name.into(),
            labels: vec![],
            state: state.into(),
            trouble: (state == "unable").then(|| "Docker doesn't answer".into()),
            version: "0.1.0".into(),
            seen_at: None,
            jobs: vec![],
            repos: None,
            forks: false,
        };
        assert_eq!(runners(&[]).result, Level::Failed);
        assert_eq!(runners(&[runner("a", "offline")]).result, Level::Failed);
        let unable = runners(&[runner("a", "unable")]);
        assert_eq!(unable.result, Level::Failed);
        assert!(unable.found.contains("Docker doesn't answer"), "{}", unable.found);
        let unable = runners(&[runner("a", "unable"), runner("b", "online")]);
        assert_eq!(unable.result, Level::Warning);
        assert_eq!(runners(&[runner("a", "online")]), Check::ok("runners", "1 online (a)"));
        let some = runners(&[runner("a", "online"), runner("b", "offline")]);
        assert_eq!(
            (some.result, some.found.as_str()),
            (Level::Warning, "1 online (a), 1 offline (b)")
        );
    }
}
