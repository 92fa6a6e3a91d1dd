//! Signatures of webhooks: `sha256=<HMAC-SHA256 of the raw body in hex>` in one header.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Why a signature isn't believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// There is none. SHA-1 signatures don't count.
    #[error("the request has no signature")]
    Missing,
    /// There are several: it isn't said which one counts.
    #[error("the request has more than one signature")]
    Several,
    /// It isn't `sha256=` and 64 hexadecimal digits in lower case.
    #[error("the signature is not `sha256=` and 64 hexadecimal digits in lower case")]
    Malformed,
    /// It is another secret's, or another body's.
    #[error("the signature doesn't match the body and this hook's secret")]
    Wrong,
}

/// Checks the signature in the header `name` over the raw body, in constant time.
///
/// # Errors
/// When the body isn't proven to come from who knows the secret.
pub fn verify(
    headers: &HeaderMap,
    name: &str,
    secret: &[u8],
    body: &[u8],
) -> Result<(), Unverified> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Unverified::Missing)?;
    if values.next().is_some() {
        return Err(Unverified::Several);
    }
    let digits = value.as_bytes().strip_prefix(b"sha256=").ok_or(Unverified::Malformed)?;
    // One form only, so that one signature has one spelling.
    if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Unverified::Malformed);
    }
    let given = hex::decode(digits).map_err(|_| Unverified::Malformed)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| Unverified::Wrong)?;
    mac.update(body);
    mac.verify_slice(&given).map_err(|_| Unverified::Wrong)
}

/// The value of the header for a body, as senders make it.
#[must_use]
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    // HMAC takes keys of any length.
    Hmac::<Sha256>::new_from_slice(secret).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(body);
            format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "x-hub-signature-256";

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn githubs_own_example_is_verified() {
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let (secret, body) =
            (b"It's a Secret to Everybody".as_slice(), b"Hello, World!".as_slice());
        assert_eq!(verify(&headers(&[good]), NAME, secret, body), Ok(()));
        assert_eq!(sign(secret, body), good);
        assert_eq!(
            verify(&headers(&[good]), NAME, secret, b"Hello, World"),
            Err(Unverified::Wrong)
        );
        assert_eq!(verify(&headers(&[good]), NAME, b"another", body), Err(Unverified::Wrong));
    }

    #[test]
    fn every_other_form_is_refused() {
        let (secret, body) = (b"s".as_slice(), b"{}".as_slice());
        let good = sign(secret, body);
        assert_eq!(verify(&headers(&[]), NAME, secret, body), Err(Unverified::Missing));
        assert_eq!(verify(&headers(&[&good, &good]), NAME, secret, body), Err(Unverified::Several));
        let upper = good.to_uppercase().replace("SHA256", "sha256");
        for bad in [
            "",
            "sha256=",
            &good[7..],
            &good[..70],
            &upper,
            "sha1=da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ] {
            assert_eq!(
                verify(&headers(&[bad]), NAME, secret, body),
                Err(Unverified::Malformed),
                "{bad}"
            );
        }
        let mut sha1 = HeaderMap::new();
        sha1.insert("x-hub-signature", good.parse().unwrap());
        assert_eq!(verify(&sha1, NAME, secret, body), Err(Unverified::Missing));
    }

    #[test]
    fn a_body_that_was_read_and_written_again_is_another_body() {
        let (secret, body) = (b"s".as_slice(), b"{\"a\": 1}".as_slice());
        let good = sign(secret, body);
        assert_eq!(verify(&headers(&[&good]), NAME, secret, b"{\"a\":1}"), Err(Unverified::Wrong));
    }
}
