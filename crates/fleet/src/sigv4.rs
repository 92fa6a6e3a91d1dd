//! AWS Signature Version 4 over headers: checks what a client signed, and signs for agents.
//!
//! The check rebuilds the signature from the request as it arrived; nothing that a client says
//! about its own hash is believed. Signatures are compared in constant time.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method};
use pipeyard_model::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credentials::AccessKey;

/// How far a client's clock may be off.
pub const MAX_SKEW: Duration = Duration::from_secs(300);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed, apart from the headers.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as sent.
    pub path: &'a str,
    /// The query as sent, without the question mark.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// Where a signature counts.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The region, `us-east-1`.
    pub region: &'a str,
    /// The service, `codedeploy`.
    pub service: &'a str,
}

/// Why a request isn't believed. The names are AWS's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigError {
    /// No signature at all.
    #[error("the request has no Authorization header: sign it with SigV4")]
    MissingAuthenticationToken,
    /// A part of the signature is missing or isn't what it should be.
    #[error("{0}")]
    IncompleteSignature(String),
    /// The access key isn't one of ours.
    #[error("the access key isn't known here: use the one in the fleet's credentials.json")]
    UnrecognizedClient,
    /// The signature doesn't fit the request, its time or its scope.
    #[error("{0}")]
    InvalidSignature(String),
}

impl SigError {
    /// The exception's name on the wire.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::IncompleteSignature(_) => "IncompleteSignatureException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::InvalidSignature(_) => "InvalidSignatureException",
        }
    }
}

struct Parts<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

fn incomplete(what: &str) -> SigError {
    SigError::IncompleteSignature(format!("Authorization header {what}"))
}

fn parse(header: &str) -> Result<Parts<'_>, SigError> {
    let rest = header
        .strip_prefix(ALGORITHM)
        .filter(|rest| rest.starts_with(' '))
        .ok_or_else(|| incomplete("doesn't begin with AWS4-HMAC-SHA256"))?;
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for part in rest.split(',') {
        match part.trim().split_once('=') {
            Some(("Credential", value)) => credential = Some(value),
            Some(("SignedHeaders", value)) => signed_headers = Some(value),
            Some(("Signature", value)) => signature = Some(value),
            _ => {}
        }
    }
    let credential = credential.ok_or_else(|| incomplete("requires 'Credential' parameter"))?;
    let fields: Vec<&str> = credential.split('/').collect();
    let [access_key, date, region, service, "aws4_request"] = fields[..] else {
        return Err(incomplete("has a Credential that isn't KEY/DATE/REGION/SERVICE/aws4_request"));
    };
    Ok(Parts {
        access_key,
        date,
        region,
        service,
        signed_headers: signed_headers
            .ok_or_else(|| incomplete("requires 'SignedHeaders' parameter"))?,
        signature: signature.ok_or_else(|| incomplete("requires 'Signature' parameter"))?,
    })
}

/// The id of the key that a request says it is signed with; nothing is checked yet.
#[must_use]
pub fn access_key_id(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    parse(header).ok().map(|parts| parts.access_key)
}

/// The signature of a request that [`verify`] has believed, and until when it is believed: what has
/// to be remembered so that the same request isn't taken twice.
#[must_use]
pub fn signature_and_end(headers: &HeaderMap) -> Option<(&str, Timestamp)> {
    let header = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let stamp = headers.get("x-amz-date")?.to_str().ok()?;
    Some((parse(header).ok()?.signature, parse_stamp(stamp)? + MAX_SKEW))
}

/// Checks that one of `keys` signed this request for `scope`, at a time near `now`. Returns the
/// access key's id.
///
/// # Errors
/// When it didn't.
pub fn verify(
    request: &Signed<'_>,
    keys: &[AccessKey],
    scope: Scope<'_>,
    now: Timestamp,
) -> Result<String, SigError> {
    let header = request.headers.get(http::header::AUTHORIZATION);
    let header = header.ok_or(SigError::MissingAuthenticationToken)?;
    let header = header.to_str().map_err(|_| incomplete("isn't text"))?;
    let parts = parse(header)?;
    let stamp = request.headers.get("x-amz-date").and_then(|value| value.to_str().ok());
    let stamp = stamp.ok_or_else(|| {
        SigError::IncompleteSignature("the request requires an X-Amz-Date header".into())
    })?;
    let time = parse_stamp(stamp).ok_or_else(|| {
        SigError::IncompleteSignature(format!(
            "Date must be in ISO-8601 'basic format'. Got '{stamp}'"
        ))
    })?;
    let signed: Vec<&str> = parts.signed_headers.split(';').collect();
    for required in ["host", "x-amz-date"] {
        if !signed.contains(&required) {
            let text = format!("'{required}' must be a 'SignedHeader' in the AWS Authorization.");
            return Err(SigError::InvalidSignature(text));
        }
    }
    // Otherwise the operation itself could be exchanged.
    let amazon = request
        .headers
        .keys()
        .find(|name| name.as_str().starts_with("x-amz-") && !signed.contains(&name.as_str()));
    if let Some(name) = amazon {
        let text = format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.");
        return Err(SigError::InvalidSignature(text));
    }
    let key = keys.iter().find(|key| key.access_key_id == parts.access_key);
    let key = key.ok_or(SigError::UnrecognizedClient)?;
    let invalid = |text: String| Err(SigError::InvalidSignature(text));
    if parts.region != scope.region {
        return invalid(format!(
            "Credential should be scoped to a valid region, not '{}': this fleet is '{}'.",
            parts.region, scope.region
        ));
    }
    if parts.service != scope.service {
        return invalid(format!(
            "Credential should be scoped to correct service: '{}'.",
            scope.service
        ));
    }
    if !stamp.starts_with(parts.date) {
        return invalid("Date in Credential scope does not match YYYYMMDD from X-Amz-Date.".into());
    }
    if time + MAX_SKEW < now {
        return invalid(format!("Signature expired: {stamp} is more than 5 minutes before {now}."));
    }
    if now + MAX_SKEW < time {
        return invalid(format!(
            "Signature not yet current: {stamp} is more than 5 minutes after {now}."
        ));
    }
    let expected = signature(request, &signed, stamp, scope, key.secret_access_key.reveal());
    if bool::from(expected.as_bytes().ct_eq(parts.signature.as_bytes())) {
        Ok(key.access_key_id.clone())
    } else {
        invalid(
            "The request signature we calculated does not match the signature you provided. Check \
             your AWS Secret Access Key and signing method."
                .into(),
        )
    }
}

/// The value of the Authorization header for a request whose headers have `host` and
/// `x-amz-date` already.
#[must_use]
pub fn authorization(request: &Signed<'_>, key: &AccessKey, scope: Scope<'_>) -> String {
    let stamp = request.headers.get("x-amz-date").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut names: Vec<&str> = request.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let signature = signature(request, &names, stamp, scope, key.secret_access_key.reveal());
    format!(
        "{ALGORITHM} Credential={}/{}/{}/{}/aws4_request, SignedHeaders={}, Signature={signature}",
        key.access_key_id,
        stamp.get(..8).unwrap_or_default(),
        scope.region,
        scope.service,
        names.join(";"),
    )
}

/// A time as SigV4 writes it, `20150830T123600Z`.
#[must_use]
pub fn stamp(time: Timestamp) -> String {
    time.to_jiff().strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn parse_stamp(stamp: &str) -> Option<Timestamp> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().into())
}

fn signature(
    request: &Signed<'_>,
    signed: &[&str],
    stamp: &str,
    scope: Scope<'_>,
    secret: &str,
) -> String {
    let canonical = canonical(request, signed);
    let date = stamp.get(..8).unwrap_or_default();
    let to_sign = format!(
        "{ALGORITHM}\n{stamp}\n{date}/{}/{}/aws4_request\n{}",
        scope.region,
        scope.service,
        hex::encode(Sha256::digest(canonical.as_bytes()))
    );
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), date);
    for part in [scope.region, scope.service, "aws4_request"] {
        key = hmac(&key, part);
    }
    hex::encode(hmac(&key, &to_sign))
}

fn canonical(request: &Signed<'_>, signed: &[&str]) -> String {
    let mut text = format!(
        "{}\n{}\n{}\n",
        request.method,
        if request.path.is_empty() { "/" } else { request.path },
        canonical_query(request.query)
    );
    for name in signed {
        let values = request.headers.get_all(*name).iter();
        let values: Vec<String> = values
            .map(|value| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                value.split_whitespace().collect::<Vec<_>>().join(" ")
            })
            .collect();
        text += &format!("{name}:{}\n", values.join(","));
    }
    let body = hex::encode(Sha256::digest(request.body));
    text + "\n" + &signed.join(";") + "\n" + &body
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join("&")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    const SCOPE: Scope<'static> = Scope { region: "us-east-1", service: "service" };

    fn key() -> AccessKey {
        AccessKey {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: Token::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// The published test suite of Signature Version 4: `get-vanilla`,
    /// `get-vanilla-query-order-key-case`, `post-vanilla`.
    #[test]
    fn the_published_vectors_give_the_published_signatures() {
        let plain =
            headers(&[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]);
        for (method, query, signature) in [
            (Method::GET, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            (
                Method::GET,
                "Param2=value2&Param1=value1",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (Method::POST, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let request = Signed { method: &method, path: "/", query, headers: &plain, body: b"" };
            let header = authorization(&request, &key(), SCOPE);
            assert_eq!(
                header,
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature={signature}"
                )
            );
        }
    }

    fn check(
        change: impl Fn(&mut HeaderMap, &mut Vec<u8>),
        scope: Scope<'_>,
        seconds_later: i64,
    ) -> Result<String, SigError> {
        let at = "2015-08-30T12:36:00Z".parse::<Timestamp>().unwrap();
        let mut headers =
            headers(&[("host", "h"), ("x-amz-date", &stamp(at)), ("x-amz-target", "T")]);
        let mut body = b"{}".to_vec();
        let request =
            Signed { method: &Method::POST, path: "/", query: "", headers: &headers, body: &body };
        let header = authorization(&request, &key(), SCOPE);
        headers.insert("authorization", header.parse().unwrap());
        change(&mut headers, &mut body);
        let request =
            Signed { method: &Method::POST, path: "/", query: "", headers: &headers, body: &body };
        verify(&request, &[key()], scope, Timestamp(at.0 + seconds_later * 1_000_000))
    }

    #[test]
    fn what_was_signed_passes_within_five_minutes() {
        for later in [-300, 0, 300] {
            assert_eq!(check(|_, _| {}, SCOPE, later).unwrap(), "AKIDEXAMPLE");
        }
    }

    #[test]
    fn a_change_a_wrong_time_or_scope_is_refused() {
        let bad = |result: Result<String, SigError>| result.unwrap_err().code();
        let code = "InvalidSignatureException";
        assert_eq!(bad(check(|_, body| body[0] = b'[', SCOPE, 0)), code);
        assert_eq!(bad(check(|h, _| drop(h.insert("host", "i".parse().unwrap())), SCOPE, 0)), code);
        assert_eq!(
            bad(check(|h, _| drop(h.insert("x-amz-target", "U".parse().unwrap())), SCOPE, 0)),
            code
        );
        assert_eq!(bad(check(|_, _| {}, SCOPE, 301)), code);
        assert_eq!(bad(check(|_, _| {}, SCOPE, -301)), code);
        assert_eq!(bad(check(|_, _| {}, Scope { region: "eu-west-1", ..SCOPE }, 0)), code);
        assert_eq!(bad(check(|_, _| {}, Scope { service: "s3", ..SCOPE }, 0)), code);
    }

    #[test]
    fn a_signature_that_is_missing_or_torn_is_named_so() {
        let set = |value: &'static str| {
            check(move |h, _| drop(h.insert("authorization", value.parse().unwrap())), SCOPE, 0)
                .unwrap_err()
                .code()
        };
        for torn in ["Bearer x", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b, Signature=1"]
        {
            assert_eq!(set(torn), "IncompleteSignatureException", "{torn}");
        }
        let stranger = "AWS4-HMAC-SHA256 Credential=WHO/20150830/us-east-1/service/aws4_request, \
                        SignedHeaders=host;x-amz-date;x-amz-target, Signature=00";
        assert_eq!(set(stranger), "UnrecognizedClientException");
        let unsigned_host = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/\
                             aws4_request, SignedHeaders=x-amz-date, Signature=00";
        assert_eq!(set(unsigned_host), "InvalidSignatureException");
        let added = |h: &mut HeaderMap, _: &mut Vec<u8>| {
            drop(h.insert("x-amz-extra", "1".parse().unwrap()));
        };
        assert_eq!(check(added, SCOPE, 0).unwrap_err().code(), "InvalidSignatureException");
        let missing = check(|h, _| drop(h.remove("authorization")), SCOPE, 0).unwrap_err();
        assert_eq!(missing.code(), "MissingAuthenticationTokenException");
    }
}
