//! What each route asks for: the one table. A route that isn't in it is refused to everybody, so a
//! new one is closed until somebody has decided.

use axum::http::Method;
use pipeyard_model::Permission;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing; or its handler checks a credential that only it understands: a webhook's signature,
    /// an attempt's password, an enrolment token, a runner's key before its process is accepted.
    Open,
    /// A runner's key.
    Runner,
    /// A person's session or token, whose role has this permission.
    Person(Permission),
}

/// Method, path as the router knows it, what it asks for.
type Route = (&'static str, &'static str, Access);

use Access::{Open, Person, Runner};
use Permission::{
    Approve, Audit, Decide, Environments, Incidents, Notifications, Own, Read, Repositories,
    Runners, Secrets, Users, Work,
};

/// Every route.
pub const ROUTES: &[Route] = &[
    ("GET", "/healthz", Open),
    ("GET", "/readyz", Open),
    ("GET", "/metrics", Person(Read)),
    ("GET", "/api/openapi.json", Person(Read)),
    // Who is asking.
    ("POST", "/api/login", Open),
    ("POST", "/api/logout", Person(Own)),
    ("GET", "/api/me", Person(Own)),
    ("GET", "/api/tokens", Person(Own)),
    ("POST", "/api/tokens", Person(Own)),
    ("DELETE", "/api/tokens/{id}", Person(Own)),
    ("GET", "/api/users", Person(Users)),
    ("POST", "/api/users", Person(Users)),
    ("PATCH", "/api/users/{name}", Person(Users)),
    ("DELETE", "/api/users/{name}", Person(Users)),
    ("POST", "/api/users/{name}/login", Person(Users)),
    ("GET", "/api/audit", Person(Audit)),
    ("GET", "/api/audit/verify", Person(Audit)),
    // What comes in.
    ("POST", "/hooks/git/{hook}", Open),
    ("POST", "/hooks/github/{hook}", Open),
    ("GET", "/git/{repo}/info/refs", Open),
    ("POST", "/git/{repo}/git-upload-pack", Open),
    // Runs.
    ("GET", "/api/events", Person(Read)),
    ("GET", "/api/runs", Person(Read)),
    ("POST", "/api/runs", Person(Work)),
    ("GET", "/api/runs/{run}", Person(Read)),
    ("POST", "/api/runs/{run}/cancel", Person(Work)),
    ("POST", "/api/runs/{run}/rerun", Person(Work)),
    ("POST", "/api/runs/{run}/approve", Person(Approve)),
    ("GET", "/api/runs/{run}/jobs/{name}/log", Person(Read)),
    ("GET", "/api/runs/{run}/jobs/{name}/log/raw", Person(Read)),
    ("GET", "/api/runs/{run}/jobs/{name}/log/search", Person(Read)),
    ("GET", "/api/runs/{run}/jobs/{name}/log/follow", Person(Read)),
    ("GET", "/api/runs/{run}/jobs/{name}/tests", Person(Read)),
    ("GET", "/api/runs/{run}/artifacts", Person(Read)),
    ("GET", "/api/artifacts/{id}", Person(Read)),
    // Repositories and secrets.
    ("GET", "/api/repos", Person(Read)),
    ("POST", "/api/repos", Person(Repositories)),
    ("DELETE", "/api/repos/{name}", Person(Repositories)),
    ("DELETE", "/api/repos/{team}/{name}", Person(Repositories)),
    ("PUT", "/api/forge-token", Person(Repositories)),
    ("DELETE", "/api/forge-token", Person(Repositories)),
    ("GET", "/api/secrets", Person(Secrets)),
    ("POST", "/api/secrets/check", Person(Read)),
    ("PUT", "/api/secrets/{name}", Person(Secrets)),
    ("DELETE", "/api/secrets/{name}", Person(Secrets)),
    ("GET", "/api/notifications", Person(Notifications)),
    ("POST", "/api/notifications/secret", Person(Notifications)),
    // Environments, deployments, incidents.
    ("GET", "/api/environments", Person(Read)),
    ("PUT", "/api/environments", Person(Environments)),
    ("POST", "/api/environments/{env}/accepts", Person(Environments)),
    ("GET", "/api/environments/{env}/check", Person(Read)),
    ("POST", "/api/environments/{env}/{service}/rollback", Person(Decide)),
    ("GET", "/api/deployments", Person(Read)),
    ("GET", "/api/deployments/{id}", Person(Read)),
    ("POST", "/api/deployments/{id}/approve", Person(Decide)),
    ("POST", "/api/deployments/{id}/promote", Person(Decide)),
    ("POST", "/api/deployments/{id}/abort", Person(Work)),
    ("GET", "/api/incidents", Person(Read)),
    ("POST", "/api/incidents", Person(Incidents)),
    ("POST", "/api/incidents/{id}/close", Person(Incidents)),
    ("GET", "/api/dora", Person(Read)),
    // Runners.
    ("GET", "/api/runners", Person(Read)),
    ("POST", "/api/runners/tokens", Person(Runners)),
    ("DELETE", "/api/runners/{id}", Person(Runners)),
    ("POST", "/api/runner/register", Open),
    ("POST", "/api/runner/hello", Open),
    ("POST", "/api/runner/goodbye", Runner),
    ("POST", "/api/runner/claim", Runner),
    ("POST", "/api/runner/heartbeat", Runner),
    ("POST", "/api/runner/jobs/{job}/{epoch}/log", Runner),
    ("POST", "/api/runner/jobs/{job}/{epoch}/steps", Runner),
    ("POST", "/api/runner/jobs/{job}/{epoch}/tests", Runner),
    ("POST", "/api/runner/jobs/{job}/{epoch}/finish", Runner),
    ("PUT", "/api/runner/jobs/{job}/{epoch}/artifacts", Runner),
];

/// What this call asks for; none if nobody has decided, or the route hasn't this method.
#[must_use]
pub fn asked(method: &Method, path: &str) -> Option<Access> {
    // A look at the head of an answer is a look at the answer.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    ROUTES.iter().find(|(m, p, _)| *m == method && *p == path).map(|(_, _, access)| *access)
}

/// Whether the table knows the path by any method.
#[must_use]
pub fn knows(path: &str) -> bool {
    ROUTES.iter().any(|(_, known, _)| *known == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_named_twice_and_none_is_open_by_chance() {
        let names: std::collections::BTreeSet<_> = ROUTES.iter().map(|(m, p, _)| (m, p)).collect();
        assert_eq!(names.len(), ROUTES.len());
        assert_eq!(asked(&Method::GET, "/api/nothing"), None);
        assert_eq!(asked(&Method::HEAD, "/api/runs"), Some(Person(Read)));
        assert_eq!(asked(&Method::OPTIONS, "/api/runs"), None);
    }
}
