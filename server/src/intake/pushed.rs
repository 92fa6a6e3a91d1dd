//! What `pipectl hook` tells of a push to a plain Git repository.

use pipeyard_api::{
    hooks::{MAX_UPDATES, PushedRefs},
    views::Event,
};
use pipeyard_store::intake::{Disposition, NewRunRequest};

use super::{BadPayload, Moved, moved};

/// Reads the body of a verified call: its delivery's name, if it has one, and what should come of
/// it.
///
/// # Errors
/// When it isn't what `pipectl hook` sends.
pub fn parse(body: &[u8]) -> Result<(Option<uuid::Uuid>, Disposition), BadPayload> {
    let pushed: PushedRefs = serde_json::from_slice(body)
        .map_err(|e| BadPayload(format!("the body can't be read: {e}")))?;
    if pushed.updates.len() > MAX_UPDATES {
        return Err(BadPayload(format!("a call names at most {MAX_UPDATES} refs")));
    }
    let mut requests = Vec::new();
    let mut why = String::from("no ref moved");
    for update in pushed.updates {
        match moved(&update.reference, &update.old, &update.new)? {
            Moved::Nothing(reason) => why = reason,
            Moved::Branch { before, after } => requests.push(NewRunRequest {
                event: Event::Push,
                reference: update.reference,
                before,
                after,
                pull_request: None,
                // Plain Git knows nobody.
                forge_user: None,
            }),
        }
    }
    let disposition = if requests.is_empty() {
        Disposition::Ignored(why)
    } else {
        Disposition::Requests(requests)
    };
    Ok((pushed.delivery, disposition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_ask_for_runs_and_the_rest_is_left_out() {
        let (a, b, zero) = ("a".repeat(40), "b".repeat(40), "0".repeat(40));
        let body = format!(
            "{{\"updates\":[{{\"ref\":\"refs/heads/main\",\"old\":\"{a}\",\"new\":\"{b}\"}},\
             {{\"ref\":\"refs/tags/v1\",\"old\":\"{zero}\",\"new\":\"{b}\"}},\
             {{\"ref\":\"refs/heads/old\",\"old\":\"{a}\",\"new\":\"{zero}\"}}]}}"
        );
        let (_, disposition) = parse(body.as_bytes()).unwrap();
        let Disposition::Requests(requests) = disposition else { panic!("{disposition:?}") };
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].reference, "refs/heads/main");
        for bad in ["", "{}", "{\"updates\":[{}]}", &body.replace(&b, "main")] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
