//! The web pages, embedded in the executable: files as they were built, and the index for every
//! path that the page's own router knows.

use std::{collections::HashMap, sync::LazyLock};

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use crate::error::Failure;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/assets.rs"));
}

/// What a page may load: its own files and nothing else; no inline script, no frame around it.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; \
    manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

struct Asset {
    bytes: &'static [u8],
    kind: &'static str,
    etag: String,
}

static ASSETS: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let asset = |&(name, bytes): &(&'static str, &'static [u8])| {
        let etag = format!("\"{}\"", &hex::encode(Sha256::digest(bytes))[..32]);
        (name, Asset { bytes, kind: content_type(name), etag })
    };
    embedded::ASSETS.iter().map(asset).collect()
});

/// Answers every path that no route has.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let api = ["api", "hooks", "git"].iter().any(|part| {
        path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if api {
        return Failure::new(
            StatusCode::NOT_FOUND,
            "no_such_route",
            format!("there is no route {}", uri.path()),
        )
        .hint("all routes: /api/openapi.json")
        .into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{method} is not possible here"),
        )
        .into_response();
    }
    let (name, asset) = match ASSETS.get_key_value(path) {
        Some((name, asset)) => (*name, asset),
        // A path with an ending is a file that isn't there; another one is a page.
        None if path.rsplit('/').next().is_some_and(|last| last.contains('.')) => {
            return Failure::not_found(format_args!("file {}", uri.path())).into_response();
        }
        None => match ASSETS.get("index.html") {
            Some(asset) => ("index.html", asset),
            None => return Failure::internal("the index page is not embedded").into_response(),
        },
    };
    // The builder puts a hash into the names below assets/.
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut answer = HeaderMap::new();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(etag) = asset.etag.parse() {
        answer.insert(header::ETAG, etag);
    }
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == asset.etag.as_bytes());
    if known {
        return (StatusCode::NOT_MODIFIED, answer).into_response();
    }
    (answer, asset.bytes).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
