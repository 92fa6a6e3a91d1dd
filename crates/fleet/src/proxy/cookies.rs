//! Pipeyard's own credentials stay out of what it deploys. A browser sends its cookies to every port
//! of a host, so an application beside Pipeyard would be given the session of whoever opens it; and
//! what it sets under such a name would be sent to Pipeyard.

use http::{HeaderMap, HeaderValue, header};

/// Names of Pipeyard's cookies begin so, in any case.
const OURS: [&[u8]; 3] = [b"pipeyard_", b"__host-pipeyard", b"__secure-pipeyard"];
/// Its tokens do: of people, of sessions.
const TOKENS: [&[u8]; 2] = [b"ppt_", b"pps_"];

fn begins(text: &[u8], with: &[u8]) -> bool {
    text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with)
}

/// Whether a cookie `name=value` has a name of ours. A browser sends one without a name as its value
/// alone, which then reads as another cookie's name.
fn is_ours(cookie: &[u8]) -> bool {
    let start = cookie.iter().position(|b| !b.is_ascii_whitespace() && *b != b'=');
    let named = start.map_or(&[][..], |start| &cookie[start..]);
    OURS.iter().any(|ours| begins(named, ours))
}

/// Takes our cookies and tokens out of a request to a program.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    let sent: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    let has_ours = |value: &HeaderValue| value.as_bytes().split(|b| *b == b';').any(is_ours);
    if sent.iter().any(has_ours) {
        headers.remove(header::COOKIE);
        for value in sent {
            let kept: Vec<&[u8]> =
                value.as_bytes().split(|b| *b == b';').filter(|cookie| !is_ours(cookie)).collect();
            let kept = kept.join(&b';');
            let kept = kept.trim_ascii();
            if !kept.is_empty()
                && let Ok(value) = HeaderValue::from_bytes(kept)
            {
                headers.append(header::COOKIE, value);
            }
        }
    }
    let tokens = headers.get_all(header::AUTHORIZATION);
    let is_token = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        let token = if begins(value, b"bearer ") { value[7..].trim_ascii() } else { return false };
        TOKENS.iter().any(|ours| token.starts_with(ours))
    };
    if tokens.iter().any(is_token) {
        headers.remove(header::AUTHORIZATION);
    }
}

/// Drops what a program sets under a name of ours.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    let set: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    if !set.iter().any(|value| is_ours(value.as_bytes())) {
        return;
    }
    headers.remove(header::SET_COOKIE);
    for value in set.into_iter().filter(|value| !is_ours(value.as_bytes())) {
        headers.append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cookies: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, cookie.parse().unwrap());
        }
        strip_request(&mut headers);
        let kept = headers.get_all(header::COOKIE).iter();
        kept.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_program_gets_its_own_cookies_and_none_of_ours() {
        assert_eq!(sent(&["a=1; pipeyard_session=x; b=2"]), ["a=1; b=2"]);
        assert_eq!(sent(&["pipeyard_session=x"]), [""; 0]);
        assert_eq!(sent(&["pipeyard_session=x; a=1", "b=2"]), ["a=1", "b=2"]);
        assert_eq!(sent(&["__Host-pipeyard_session=x;a=1"]), ["a=1"]);
        assert_eq!(sent(&["__host-Pipeyard=x;  Pipeyard_Other=y;a=1"]), ["a=1"]);
        assert_eq!(sent(&["=pipeyard_session=x; a=1"]), ["a=1"]);
        // Untouched to the byte.
        let others = "a=1;b = \"x\" ; my_pipeyard_x=1; __Host-id=2; c";
        assert_eq!(sent(&[others]), [others]);
    }

    #[test]
    fn a_program_sets_its_own_cookies_and_none_of_ours() {
        let mut headers = HeaderMap::new();
        for set in [
            "a=1; Path=/",
            "pipeyard_session=evil; Path=/; HttpOnly",
            " __Host-pipeyard_session=evil; Secure; Path=/",
            "=pipeyard_session=evil",
            "pipeyard_session",
            "b=pipeyard_session",
        ] {
            headers.append(header::SET_COOKIE, HeaderValue::from_str(set).unwrap());
        }
        strip_response(&mut headers);
        let kept: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(kept, ["a=1; Path=/", "b=pipeyard_session"]);
    }

    #[test]
    fn only_tokens_of_pipeyard_are_taken_out() {
        for (value, kept) in [
            ("Bearer ppt_abc", false),
            ("bearer  ppt_abc", false),
            ("Bearer pps_abc", false),
            ("Bearer eyJhbGciOi", true),
            ("Basic cHB0Xw==", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            strip_request(&mut headers);
            assert_eq!(headers.contains_key(header::AUTHORIZATION), kept, "{value}");
        }
    }
}
