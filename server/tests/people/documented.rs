//! The API document is whole: what isn't in it doesn't exist.

use crate::support::Server;

/// Git's own protocol, which Git documents, and a wildcard, which OpenAPI can't say: the document
/// names it beside.
const KNOWN: [&str; 3] = [
    ".route(\"/git/{repo}/info/refs\"",
    ".route(\"/git/{repo}/git-upload-pack\"",
    ".route(\"/api/repos/{*name}\"",
];

/// axum can't list its routes, but its API lets one add them only by these calls. `routes!` adds
/// to the document as well.
#[test]
fn no_route_is_added_past_the_document() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![folder];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                seen += 1;
                let past = [
                    ".route(",
                    ".route_service(",
                    ".nest(",
                    ".nest_service(",
                    ".fallback_service(",
                ];
                let known = KNOWN.iter().any(|route| line.contains(route));
                let found = past.iter().find(|call| line.contains(**call) && !known);
                assert!(
                    found.is_none(),
                    "{}:{}: {}: use routes!, so that the route is documented and guarded",
                    path.display(),
                    number + 1,
                    line.trim()
                );
            }
        }
    }
    assert!(seen > 1000);
}

#[tokio::test]
async fn the_document_says_what_each_operation_is() {
    let server = Server::start().await;
    let document = server.get("/api/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "Pipeyard");
    let mut names = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = format!("{method} {path}");
            let words = operation["summary"].as_str().or(operation["description"].as_str());
            assert!(words.is_some_and(|words| !words.is_empty()), "{name} says nothing of itself");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} has one tag");
            assert!(
                operation["responses"].as_object().is_some_and(|all| !all.is_empty()),
                "{name} answers"
            );
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            assert!(!id.is_empty(), "{name} has an id");
            names.insert(name);
        }
    }
    for name in [
        "get /api/runs",
        "post /api/runs/{run}/cancel",
        "get /api/events",
        "put /api/secrets/{name}",
        "get /api/artifacts/{id}",
    ] {
        assert!(names.contains(name), "{name} is missing");
    }
}

/// Every `$ref` leads somewhere.
#[tokio::test]
async fn the_document_refers_to_nothing_that_is_missing() {
    let server = Server::start().await;
    let document = server.get("/api/openapi.json").await.json();
    let mut values = vec![&document];
    while let Some(value) = values.pop() {
        match value {
            serde_json::Value::Object(fields) => {
                if let Some(to) = fields.get("$ref").and_then(|to| to.as_str()) {
                    let pointer = to.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{to} is missing");
                }
                values.extend(fields.values());
            }
            serde_json::Value::Array(items) => values.extend(items),
            _ => {}
        }
    }
}

#[tokio::test]
async fn errors_of_the_framework_have_our_shape() {
    let server = Server::start().await;
    for (method, path, body, code) in [
        ("POST", "/api/tokens", "not json", "bad_request"),
        ("POST", "/api/runs", "", "bad_request"),
        ("DELETE", "/api/tokens/not-an-id", "", "bad_request"),
        ("PATCH", "/api/me", "", "method_not_allowed"),
        ("GET", "/api/nothing", "", "no_such_route"),
        ("GET", "/api/runs?limit=many", "", "bad_request"),
    ] {
        let bearer = server.bearer();
        let answer = server.send(method, path, &[("authorization", &bearer)], body).await;
        assert!(answer.status.is_client_error());
        assert_eq!(answer.code(), code, "{method} {path}");
    }
}
