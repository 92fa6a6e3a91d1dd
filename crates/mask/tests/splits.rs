//! However a stream is cut, the same comes out, and nothing of a secret is in it.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use pipeyard_mask::Masker;
use proptest::prelude::*;

fn one_shot(masker: &Masker, text: &[u8]) -> Vec<u8> {
    let mut masker = masker.fresh();
    let mut out = Vec::new();
    masker.push(text, &mut out);
    masker.flush(&mut out);
    out
}

fn in_pieces(masker: &Masker, text: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.sort_unstable();
    let mut masker = masker.fresh();
    let mut out = Vec::new();
    let mut from = 0;
    for to in places.into_iter().chain([text.len()]) {
        masker.push(&text[from..to], &mut out);
        from = to;
    }
    masker.flush(&mut out);
    out
}

/// What must come out, found the slow way: every byte of every occurrence is covered.
fn by_hand(patterns: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
    let mut covered = vec![false; text.len()];
    for pattern in patterns {
        for (at, window) in text.windows(pattern.len()).enumerate() {
            if window == pattern.as_slice() {
                covered[at..at + pattern.len()].fill(true);
            }
        }
    }
    let mut out = Vec::new();
    let mut before = false;
    for (byte, covered) in text.iter().zip(covered) {
        match (covered, before) {
            (true, false) => out.extend_from_slice(b"***"),
            (true, true) => {}
            (false, _) => out.push(*byte),
        }
        before = covered;
    }
    out
}

/// Secrets of few letters overlap each other and themselves.
fn secrets() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[ab]{8,14}", 1..5)
}

/// The forms in which a text holds a secret in these tests.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let behind = |prefix: &str| STANDARD.encode(format!("{prefix}{secret}and more"));
    vec![
        secret.as_bytes().to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
        STANDARD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        behind("x").into_bytes(),
        behind("xy").into_bytes(),
        behind("xyz").into_bytes(),
    ]
}

proptest! {
    #[test]
    fn raw_secrets_come_out_as_by_hand_at_every_split(
        secrets in secrets(),
        pieces in prop::collection::vec((0_usize..8, "[abc]{0,9}"), 0..8),
    ) {
        let secrets: Vec<String> = secrets
            .into_iter()
            .filter(|secret| pipeyard_mask::refuse_reason(secret).is_none())
            .collect();
        let mut text = Vec::new();
        for (which, noise) in &pieces {
            text.extend_from_slice(noise.as_bytes());
            if let Some(secret) = secrets.get(*which) {
                text.extend_from_slice(secret.as_bytes());
            }
        }
        let masker = Masker::new(secrets.iter().map(String::as_str));
        let patterns: Vec<Vec<u8>> = secrets.iter().map(|s| s.clone().into_bytes()).collect();
        let expected = by_hand(&patterns, &text);
        prop_assert_eq!(one_shot(&masker, &text), expected.clone());
        for split in 0..=text.len() {
            let mut masker = masker.fresh();
            let mut out = Vec::new();
            masker.push(&text[..split], &mut out);
            masker.push(&text[split..], &mut out);
            masker.flush(&mut out);
            prop_assert_eq!(&out, &expected, "split at {}", split);
        }
        let mut masker = masker.fresh();
        let mut out = Vec::new();
        for byte in &text {
            masker.push(&[*byte], &mut out);
        }
        masker.flush(&mut out);
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn no_encoding_survives_any_split(
        secret in "[ -~]{8,40}",
        other in "[a-z\u{ac00}-\u{ac20}]{8,20}",
        noise in "[ -)+-~]{0,20}",
        chosen in 0_usize..8,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        // A secret of stars could stand in the masks themselves.
        prop_assume!(!secret.contains('*') && pipeyard_mask::refuse_reason(&secret).is_none());
        prop_assume!(pipeyard_mask::refuse_reason(&other).is_none());
        let form = forms(&secret)[chosen].clone();
        let text = [noise.as_bytes(), &form, noise.as_bytes(), other.as_bytes()].concat();
        let masker = Masker::new([secret.as_str(), other.as_str()].into_iter());
        let whole = one_shot(&masker, &text);
        prop_assert_eq!(&in_pieces(&masker, &text, &cuts), &whole);
        let mut patterns = pipeyard_mask::encodings::Patterns::new();
        pipeyard_mask::encodings::of(&secret, &mut patterns);
        pipeyard_mask::encodings::of(&other, &mut patterns);
        let patterns: Vec<Vec<u8>> = patterns.into_keys().collect();
        prop_assert_eq!(&whole, &by_hand(&patterns, &text));
        for value in [secret.as_bytes(), other.as_bytes()] {
            prop_assert!(!whole.windows(value.len()).any(|window| window == value));
        }
    }
}

/// Letters in lines of `width`, as `base64 -w` writes them.
fn in_lines(letters: &str, width: usize, end: &str) -> String {
    let lines: Vec<_> = letters.as_bytes().chunks(width).map(String::from_utf8_lossy).collect();
    lines.join(end) + end
}

proptest! {
    /// Before and after the secret stand digits only, so that no letters of its form are theirs.
    #[test]
    fn a_form_that_is_broken_into_lines_is_masked_at_every_split(
        secret in "[a-zA-Z+/_-]{8,150}",
        other in "[a-z]{8,20}",
        before in "[0-9]{0,160}",
        behind in "[0-9]{0,160}",
        width in prop_oneof![Just(60_usize), Just(64), Just(76), 16_usize..100],
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        in_hex in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        prop_assume!(pipeyard_mask::refuse_reason(&secret).is_none());
        prop_assume!(pipeyard_mask::refuse_reason(&other).is_none());
        let plain = format!("{before}{secret}{behind}");
        // Letters that depend on the secret alone, from `first` up to `last`.
        let ends = [before.len(), before.len() + secret.len()];
        let (letters, [first, last]) = if in_hex {
            (hex::encode(&plain), ends.map(|end| end * 2))
        } else {
            (STANDARD.encode(&plain), [(ends[0] * 8).div_ceil(6), ends[1] * 8 / 6])
        };
        let text = format!("$ base64 key\n{}$ done\n", in_lines(&letters, width, end));
        let masker = Masker::new([secret.as_str(), other.as_str()].into_iter());
        let whole = one_shot(&masker, text.as_bytes());
        prop_assert_eq!(&in_pieces(&masker, text.as_bytes(), &cuts), &whole);
        let left: Vec<u8> = whole.into_iter().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        // Of a form that breaks within its first letters, these three are seen.
        for window in letters.as_bytes()[first + 3..last].windows(8) {
            prop_assert!(
                !left.windows(8).any(|seen| seen == window),
                "{} is left in {}", String::from_utf8_lossy(window), String::from_utf8_lossy(&left)
            );
        }
        for kept in [&b"$ base64 key"[..], b"$ done"] {
            prop_assert!(left.windows(kept.len()).any(|seen| seen == kept));
        }
    }

    /// Text of few letters breaks off and resumes forms in every way.
    #[test]
    fn any_text_comes_out_the_same_at_every_split(
        text in "[YWFh\n\r]{0,80}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        // In base64 both are rows of these letters.
        let masker = Masker::new(["aaaaaaaaaaaaaaab", "aaaaaaaaYWFhYWFhYWFh"].into_iter());
        let whole = one_shot(&masker, text.as_bytes());
        prop_assert_eq!(in_pieces(&masker, text.as_bytes(), &cuts), whole);
    }
}

/// The forms above are masked but for the letters that others share with the secret.
#[test]
fn every_form_at_every_split_is_masked() {
    let secret = "correct horse battery staple";
    let masker = Masker::new([secret].into_iter());
    for form in forms(secret) {
        for split in 0..=form.len() {
            let mut masker = masker.fresh();
            let mut out = Vec::new();
            masker.push(&form[..split], &mut out);
            masker.push(&form[split..], &mut out);
            masker.flush(&mut out);
            let left = out.iter().filter(|byte| **byte != b'*').count();
            assert!(out.windows(3).any(|w| w == b"***"), "{}", String::from_utf8_lossy(&out));
            // "and more" is 11 letters of base64, and the prefix at most 4.
            assert!(left <= 16, "{}", String::from_utf8_lossy(&out));
        }
    }
}
