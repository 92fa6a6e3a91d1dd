//! The embedded pages.

use axum::http::StatusCode;

use crate::support::Server;

#[tokio::test]
async fn a_page_is_served_for_every_path_that_is_no_file_and_no_api() {
    let server = Server::start().await;
    for path in ["/", "/runs/81", "/repos/team/shop"] {
        let page = server.send("GET", path, &[], "").await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (StatusCode::OK, "text/html; charset=utf-8"),
            "{path}"
        );
        assert_eq!(page.header("cache-control"), "no-cache");
        let etag = page.header("etag").to_owned();
        let again = server.send("GET", path, &[("if-none-match", &etag)], "").await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    for (method, path, status) in [
        ("GET", "/assets/missing-1234.js", StatusCode::NOT_FOUND),
        ("GET", "/favicon.missing", StatusCode::NOT_FOUND),
        ("GET", "/api", StatusCode::NOT_FOUND),
        ("GET", "/api/nothing", StatusCode::NOT_FOUND),
        ("GET", "/hooks/x", StatusCode::NOT_FOUND),
        ("POST", "/", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = server.send(method, path, &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.json()["error"]["code"].is_string());
    }
}

#[tokio::test]
async fn a_page_may_load_only_its_own_files() {
    let server = Server::start().await;
    let page = server.send("GET", "/", &[], "").await;
    let policy = page.header("content-security-policy");
    for rule in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "same-origin");
}
